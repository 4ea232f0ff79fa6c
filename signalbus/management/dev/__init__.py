"""The ``manage.py signalbus dev`` command: a broker, a worker that restarts when code changes, and its deliveries."""
