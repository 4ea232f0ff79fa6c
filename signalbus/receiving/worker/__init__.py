"""The main process of a Celery worker: start-up, the consumer, each request, and stragglers in a batch.

Celery calls it. The deliveries run in the processes or threads of the pool: see `receiving/routing`.
"""
