"""Measures the costs of the bus beside Celery's own tasks and Django's own signals, in one run: ``make bench``."""
