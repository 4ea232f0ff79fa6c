"""From a text on a queue to the receivers of its message: verify it, read it, resolve its recipients, or requeue it.

The Celery task (`tasks.py`) calls `batch.deliver` in a process of the worker's pool. The deliveries are run by
`receiving/running`.
"""
