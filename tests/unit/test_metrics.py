"""The view of the metrics refuses strangers without a query, and what docs/monitoring names is exported."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.test import Client, override_settings

from signalbus.telemetry.exposition import text_of
from signalbus.telemetry.metric_families import MetricFamily

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "telemetry.md").read_text()
DASHBOARD = ROOT / "docs" / "monitoring" / "signalbus-dashboard.json"
ALERTS = ROOT / "docs" / "monitoring" / "signalbus-alerts.yml"
CODE = (ROOT / "signalbus" / "telemetry" / "metric_families.py").read_text()
WRONG = ["", "Bearer", "Bearer ", "Bearer wrong", "Basic s3cret", "Bearer s3cret2", "bearers3cret", "Bearer \u00e4"]


@pytest.mark.parametrize("header", WRONG)
@pytest.mark.parametrize("token", ["s3cret", None])
def test_anonymous_requests_get_nothing(client: Client, header: str, token: str | None):
    """Without the setting no token is right; no query is made, which a unit test would not allow."""
    with override_settings(SIGNALBUS={} if token is None else {"METRICS_TOKEN": token}):
        answer = client.get("/metrics", headers={"authorization": header} if header else {})

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert b"signalbus_" not in answer.content


def test_a_histogram_is_cumulative():
    """Each bucket contains the ones below it, and the last all."""
    family = MetricFamily("h_seconds", "histogram", "A histogram.")
    family.add_histogram([1, 2, *[0] * 28, 4], 7.5, receiver="r")
    lines = text_of([family]).splitlines()

    assert lines[:4] == [
        "# HELP h_seconds A histogram.",
        "# TYPE h_seconds histogram",
        'h_seconds_bucket{receiver="r",le="0.005"} 1',
        'h_seconds_bucket{receiver="r",le="0.0075"} 3',
    ]
    assert lines[-3:] == [
        'h_seconds_bucket{receiver="r",le="+Inf"} 7',
        'h_seconds_sum{receiver="r"} 7.5',
        'h_seconds_count{receiver="r"} 7',
    ]


def exported() -> set[str]:
    """Return the names that the code gives to metrics."""
    return set(re.findall(r'"(signalbus_\w+)"', CODE))


def named(text: str) -> set[str]:
    """Return the metrics that a text names, without the parts of histograms."""
    return {re.sub("_seconds_(bucket|sum|count)$", "_seconds", name) for name in re.findall(r"signalbus_\w+", text)}


def test_the_dashboard_loads_and_shows_what_is_exported():
    """Each query names metrics that the collector has; ids are unique."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]

    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert named(" ".join(queries)) == exported()


def test_the_alert_rules_name_what_is_exported():
    """Each expression names metrics that the collector has."""
    assert len(re.findall(r"^      - alert: \w+$", ALERTS.read_text(), re.MULTILINE)) == 10
    assert named(ALERTS.read_text()) - exported() == set()


def test_the_page_lists_each_metric():
    """The table has all of them, and no other."""
    table = PAGE[PAGE.index("### The metrics") : PAGE.index("### Dashboard")]
    assert set(re.findall(r"`(signalbus_\w+)`", table)) == exported()
