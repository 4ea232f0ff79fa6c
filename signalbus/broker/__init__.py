"""Publishing texts to a queue: through Celery, or on a fast path that writes to Redis directly.

`sending/outbox`, the sweeper and the worker's processes call `publisher`.
"""
