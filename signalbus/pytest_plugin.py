"""A pytest fixture, found by itself: ``sent_signals``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalbus.testing import Captured


@pytest.fixture
def sent_signals() -> Iterator[Captured]:
    """Capture what a test sends: see ``signalbus.testing.captured``."""
    from signalbus.testing import captured  # noqa: PLC0415 - pytest loads plugins before Django is set up

    with captured() as capture:
        yield capture
