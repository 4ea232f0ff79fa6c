"""Publish signed texts to a queue of the broker, through Celery or by the fast path to Redis.

Both sending and receiving publish through this package. It reads no ledger and runs no receiver.
"""
