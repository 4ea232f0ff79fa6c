"""What we use of Django's private parts: each with what would break, and tests/unit/test_compat.py that notices it."""

from __future__ import annotations
