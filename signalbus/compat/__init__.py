"""Wrap the private parts of Django, Celery, kombu and redis-py that signalbus uses, in a module for each.

Each function says what would break without its private part; tests in tests/unit/compat notice a change.
"""
