"""Where we use what Django and Celery keep private: a module for each.

Each use says what would break without it; tests in tests/unit/compat notice a change.
"""
