"""Shared by all tests. Unit tests need no server; integration and acceptance tests start theirs themselves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from signalbus import embedded
from tests.other_servers import BROKER, BROKERS, DATABASE, DATABASES, programs

if TYPE_CHECKING:
    from collections.abc import Generator


def pytest_configure() -> None:
    """Refuse a run on a server that this checkout does not know, or that this machine does not have."""
    for variable, chosen, known in (
        ("SIGNALBUS_TEST_DATABASE", DATABASE, DATABASES),
        ("SIGNALBUS_TEST_BROKER", BROKER, BROKERS),
    ):
        if chosen is not None and chosen not in known:
            raise pytest.UsageError(f"{variable} is {chosen!r}; it may be one of {', '.join(known)}, or not set.")
        if chosen is not None:
            try:
                programs.find(chosen)
            except programs.MissingProgramError as error:
                raise pytest.UsageError(str(error)) from error
    if "SIGNALBUS_TEST_REDIS" in os.environ:
        server = Path(os.environ["SIGNALBUS_TEST_REDIS"]).resolve(strict=True)
        embedded._binary = lambda: server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let each report travel to another process: half of a surrogate pair, which may be logged, is no UTF-8."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a run on other servers, deselect tests that do not use them, or that are for another server only."""
    if DATABASE is None and BROKER is None:
        return
    chosen = [item for item in items if isinstance(item, pytest.Function) and _uses_the_others(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def _uses_the_others(item: pytest.Function) -> bool:
    asked = set(item.fixturenames)
    if DATABASE is not None:
        given = getattr(item, "callspec", None)
        kind = DATABASE if given is None else given.params.get("database", DATABASE)
        if kind != DATABASE or "database_url" not in asked:
            return False
    return BROKER is None or ("valkey" not in asked and bool(asked & {"broker_url", "celery_broker"}))
