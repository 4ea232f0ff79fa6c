"""What we use of kombu's private parts: each with what would break, and tests in tests/unit/compat that notice it."""

from __future__ import annotations
