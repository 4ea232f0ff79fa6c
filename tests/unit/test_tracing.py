"""Tracers are switched on by settings, say what is missing, and bound what travels."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from django.test import override_settings

from signalbus import conf, tracing
from signalbus.exceptions import ConfigurationError
from signalbus.telemetry.activation import activate
from signalbus.wire.message import uuid7

if TYPE_CHECKING:
    from collections.abc import Iterator

MADE = tracing.Creation(uuid7(), "shop.paid", 10, None, {None: ("crm.sync",)})


class FixedTracer:
    """Sends given headers along."""

    def __init__(self, **headers: str) -> None:
        self._headers = headers

    def create(self, made: tracing.Creation) -> dict[str, str]:
        """Return them."""
        return self._headers

    def publish(self, queue: str, sent: Any) -> Any:
        """Do nothing."""
        return nullcontext()

    def process(self, delivery: Any, message: Any) -> Any:
        """Do nothing."""
        return nullcontext()


@pytest.fixture(autouse=True)
def tracers_as_they_were() -> Iterator[None]:
    """Switch off what a test has switched on."""
    before = tracing.tracers
    yield
    for tracer in tracing.tracers:
        if tracer not in before:
            tracing.remove_tracer(tracer)


@pytest.mark.parametrize(
    ("setting", "module", "extra"), [("OTEL", "opentelemetry", "opentelemetry"), ("SENTRY", "sentry_sdk", "sentry")]
)
def test_a_missing_library_is_named_with_its_extra(
    setting: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
):
    """At start-up, and not at the first send()."""
    monkeypatch.delitem(sys.modules, f"signalbus.telemetry.{extra}_spans", raising=False)
    monkeypatch.setitem(sys.modules, module, None)

    with (
        override_settings(SIGNALBUS={setting: True}),
        pytest.raises(ConfigurationError, match=rf"{setting}.*pip install 'django-signalbus\[{extra}\]'"),
    ):
        activate(conf.get())
    assert tracing.tracers == ()


def test_without_the_settings_nothing_is_imported():
    """Neither our own modules, nor the libraries (opentelemetry is imported by redis-py)."""
    code = (
        "import sys, django; django.setup(); "
        "names = ('signalbus.telemetry', 'sentry_sdk', 'prometheus_client'); "
        "print([name for name in names if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"},
    )

    assert ended.stdout == "[]\n", ended.stderr


def test_baggage_of_two_tracers_is_joined():
    """As the standard of W3C has it; other headers are each tracer's own."""
    tracing.add_tracer(FixedTracer(traceparent="00-1", baggage="tenant=a"))
    tracing.add_tracer(FixedTracer(**{"sentry-trace": "2-3", "baggage": "sentry-release=b"}))

    expected = {"traceparent": "00-1", "sentry-trace": "2-3", "baggage": "tenant=a,sentry-release=b"}
    assert tracing.created(MADE) == expected


def test_an_endless_header_is_left_out():
    """A message's header has a limit, and a trace is no reason not to send."""
    tracing.add_tracer(FixedTracer(traceparent="00-1", baggage="x" * 10_000))

    assert tracing.created(MADE) == {"traceparent": "00-1"}
