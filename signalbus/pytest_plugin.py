"""Provide pytest fixtures with the names of the functions in ``signalbus.testing``.

pytest finds this plugin by its entry point, and loads it itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from signalbus.testing import Captured

# Each imports signalbus.testing when it is used: pytest loads plugins before Django is set up.


@pytest.fixture
def captured() -> Iterator[Captured]:
    """Capture the messages of a test: see ``signalbus.testing.captured``."""
    from signalbus import testing  # noqa: PLC0415 - see above

    with testing.captured() as capture:
        yield capture


@pytest.fixture
def sent_signals(captured: Captured) -> Captured:
    """Capture the messages of a test: another name of ``captured``."""
    return captured


@pytest.fixture
def deliver_all(captured: Captured) -> Callable[[], int]:
    """Capture the messages of a test, to be delivered by a call: see ``signalbus.testing.deliver_all``."""
    return captured.deliver_all


@pytest.fixture
def muted() -> Iterator[None]:
    """Let nothing out of a test: see ``signalbus.testing.muted``."""
    from signalbus import testing  # noqa: PLC0415 - see above

    with testing.muted():
        yield


@pytest.fixture
def immediate() -> Iterator[None]:
    """Deliver each send of a test at once: see ``signalbus.testing.immediate``."""
    from signalbus import testing  # noqa: PLC0415 - see above

    with testing.immediate():
        yield
