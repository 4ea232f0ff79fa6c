"""Where we use what Django, Celery and kombu keep private: a module for each, and a test in tests/unit/compat that notices a change."""
