"""The ``manage.py signalbus`` command and the reports that it prints."""
