"""What the bus costs beside Celery's own tasks and Django's own signals, measured in the same run: ``make bench``."""
