"""Where we use what Django, Celery and kombu keep private: a module for each, and a test that notices a change."""
