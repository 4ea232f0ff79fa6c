"""Publishing texts to a queue: Celery's own way to a queue, and a fast path for Redis.

`sending/outbox`, the sweeper and the worker's processes call `publisher`.
"""
