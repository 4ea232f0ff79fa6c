"""The main process of a Celery worker: start-up, the consumer, each request, and stragglers in a batch."""
