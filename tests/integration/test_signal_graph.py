"""The graph of signals: who sends to whom, with rates, cascades, pauses and dead ends; as a page and by the command."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override

from signalbus import Signal
from signalbus.graph import signal_graph as collecting
from signalbus.graph.signal_graph import signal_graph
from signalbus.graph.svg_drawing import MARKS
from signalbus.models import Pause, Rollup, WorkerRecord
from signalbus.services.actors import Actor, code_actor
from signalbus.web.views import graph_picture
from tests.other_servers import DATABASE

from .admin_site import READER, VIEWER, add_delivery, add_message, page, visitor
from .bus import connect

if TYPE_CHECKING:
    from signalbus.graph.signal_graph import SignalGraph

pytestmark = pytest.mark.usefixtures("database_url")


@pytest.fixture
def database() -> str:
    """One database: the graph is made of what Django reads."""
    return DATABASE or "sqlite"


@pytest.fixture
def bazaar() -> list[Signal]:
    """Four signals: one with two receivers, one that a receiver sends, one that nobody hears, one to another queue."""
    paid, booked, unheard, mailed = (Signal(f"bazaar.{name}") for name in ("paid", "booked", "unheard", "mailed"))
    connect(paid, lambda **kwargs: None, "billing.book")
    connect(paid, lambda **kwargs: None, "crm.sync")
    connect(booked, lambda **kwargs: None, "search.index")
    connect(mailed, lambda **kwargs: None, "mail.send", queue="email")
    return [paid, booked, unheard, mailed]


def add_worker(**columns: Any) -> None:
    """Add a living worker that consumes the default queue."""
    now = timezone.now()
    given = {
        "name": "w:1", "host": "w", "pid": 1, "pool": "solo", "concurrency": 1, "queues": ["signalbus"],
        "version": "1", "registry_digest": "a", "receivers": {}, "started_at": now,
        "seen_at": now + timedelta(hours=1), **columns,
    }  # fmt: skip
    WorkerRecord.objects.create(**given)


def add_rates(signal: str = "bazaar.paid", receiver: str = "billing.book", done: int = 120) -> None:
    """Add what ended in this minute."""
    Rollup.objects.create(bucket_at=timezone.now(), seconds=60, signal=signal, receiver=receiver, done=done)


def collect(**options: Any) -> SignalGraph:
    """Return the graph of the bazaar."""
    return signal_graph(code_actor(), part="bazaar.", **options)


def lines(graph: SignalGraph) -> set[tuple[str, str]]:
    """Return the lines of a graph, by the keys of their ends."""
    return {(edge.source, edge.target) for edge in graph.edges}


@pytest.mark.usefixtures("bazaar")
def test_signals_receivers_and_queues_are_joined_with_their_rates():
    """A line from a signal to its receiver has the number of deliveries that end in a minute."""
    add_worker()
    add_rates()
    graph = collect()

    assert {("app:bazaar", "signal:bazaar.paid"), ("signal:bazaar.paid", "receiver:crm.sync")} <= lines(graph)
    assert ("receiver:mail.send", "queue:email") in lines(graph)
    rates = {edge.target: edge.rate for edge in graph.edges if edge.rate is not None}
    assert rates == {
        "receiver:billing.book": 20,
        "receiver:crm.sync": 0,
        "receiver:search.index": 0,
        "receiver:mail.send": 0,
    }


@pytest.mark.usefixtures("bazaar")
def test_dead_ends_and_pauses_are_marked():
    """A signal that nobody hears, a receiver that got nothing so far, a queue without a worker, and a pause."""
    add_worker()
    add_rates()
    add_rates("bazaar.mailed", "mail.send")
    Pause.objects.create(kind="receiver", name="billing.book", by="ana", since=timezone.now())
    marks = {key: node.marks for key, node in collect().nodes.items() if node.marks}

    assert marks == {
        "signal:bazaar.unheard": ("unheard",),
        "receiver:billing.book": ("paused",),
        "receiver:crm.sync": ("unreached",),
        "receiver:search.index": ("unreached",),
        "receiver:mail.send": ("unconsumed",),
        "queue:email": ("unconsumed",),
    }
    assert collect().dead_ends == 5


@pytest.mark.usefixtures("bazaar")
def test_a_receiver_that_sends_a_signal_is_joined_to_it():
    """A message of a cascade names its parent, and the parent's deliveries say which receiver ran when it was sent."""
    sent = add_message("bazaar.paid")
    now = timezone.now()
    add_delivery("crm.sync", "done", sent, started_at=now - timedelta(seconds=9))
    add_delivery("billing.book", "done", sent, started_at=now - timedelta(seconds=5))
    add_message("bazaar.booked", parent=sent)

    assert [(edge.source, edge.target) for edge in collect().edges if edge.is_cascade] == [
        ("receiver:billing.book", "signal:bazaar.booked")
    ]


def test_receivers_that_only_workers_know_are_in_it():
    """The code of an open signal's receivers need not be in the web process."""
    Signal("bazaar.opened", open=True)
    add_worker(receivers={"bazaar.opened": ["other.receiver"]})

    assert ("signal:bazaar.opened", "receiver:other.receiver") in lines(collect())


@pytest.mark.usefixtures("bazaar")
def test_an_app_has_what_it_sends_and_receives():
    """The filter keeps the signals that an app declares, sends or receives."""
    graph = collect(app="crm")
    assert [node.name for node in graph.nodes.values() if node.kind == "signal"] == ["bazaar.paid"]
    assert set(graph.apps) >= {"bazaar", "billing", "crm", "mail", "search"}


@pytest.mark.usefixtures("bazaar")
def test_many_signals_are_drawn_by_app():
    """Above the limit apps stand in their place, with the sums of their rates."""
    add_rates()
    graph = collect(most=3)

    assert graph.by_app
    assert {node.kind for node in graph.nodes.values()} == {"app", "queue"}
    assert {(edge.source, edge.target): edge.rate for edge in graph.edges if edge.rate} == {
        ("app:bazaar", "to:billing"): 20
    }


def test_the_graph_needs_the_permission_to_see_deliveries():
    """It is checked in the function that the page and the command call."""
    with pytest.raises(PermissionDenied):
        signal_graph(Actor("eve", "code", allows=lambda permission: False))


@pytest.mark.usefixtures("bazaar")
def test_the_page_shows_the_drawing_and_the_same_as_a_table():
    """Boxes lead to the pages of signals and receivers; the table has each line, and the signals without one."""
    text = page(visitor(*VIEWER), reverse("signalbus_web:graph"), q="BAZAAR")

    assert f'<a href="{reverse("signalbus_web:receiver")}?id=billing.book" tabindex="-1">' in text
    assert "▲ nobody listens" in text
    table = text[text.index("<table") :]
    assert table.count("bazaar.<wbr>unheard") == 1
    assert table.count("billing.<wbr>book") == 1
    assert ">4 signals</h2>" in text
    with override("de"):
        assert "niemand" in str(graph_picture.MARKS["unheard"])
    with override("en"):
        assert {key: str(text) for key, text in graph_picture.MARKS.items()} == MARKS


def test_a_graph_of_200_signals_is_drawn_with_as_many_statements_as_one_of_two(monkeypatch: pytest.MonkeyPatch):
    """The page does not ask the ledger for each signal, and is bounded in bytes."""
    client, url = visitor(*READER), reverse("signalbus_web:graph")

    def statements() -> int:
        with CaptureQueriesContext(connection) as queries:
            page(client, url, q="grown.")
        return len(queries)

    def declare(numbers: range) -> list[Signal]:
        made = [Signal(f"grown.signal_{number}") for number in numbers]
        for number, signal in zip(numbers, made, strict=True):
            connect(signal, lambda **kwargs: None, f"app_{number % 9}.receiver_{number}", queue=f"q{number % 5}")
        return made

    signals = declare(range(2))
    statements()  # fills caches
    few = statements()
    signals += declare(range(2, 200))

    assert statements() == few
    shown = page(client, url, q="grown.")
    assert "205 dead ends" in shown
    assert len(shown) < 500_000
    assert "the graph shows apps" not in shown
    monkeypatch.setattr(collecting, "MOST_RECEIVERS", 199)
    assert "the graph shows apps" in page(client, url, q="grown.")


def run(*arguments: str) -> str:
    """Return what the command prints."""
    output = StringIO()
    call_command("signalbus", "graph", "--signal", "bazaar.", *arguments, stdout=output)
    return output.getvalue()


@pytest.mark.usefixtures("bazaar")
def test_the_command_draws_in_three_formats():
    """Mermaid by default, SVG that is a file of its own, and JSON with a schema number."""
    add_rates()
    assert run().startswith("flowchart LR\n")
    assert '-->|"20/min"|' in run("--format", "mermaid")
    root = ET.fromstring(run("--format", "svg"))
    assert root.find("{http://www.w3.org/2000/svg}style") is not None
    found = json.loads(run("--format", "json", "--app", "crm"))
    assert (found["schema"], found["signals"]) == (1, 1)
    assert {node["name"] for node in found["nodes"]} == {
        "bazaar",
        "bazaar.paid",
        "billing.book",
        "crm.sync",
        "signalbus",
    }
    with pytest.raises(CommandError, match="No signal matches"):
        run("--app", "nowhere")


@pytest.mark.usefixtures("bazaar")
def test_the_code_alone_is_drawn_without_the_database():
    """With --code-only no row is read, and no rate, pause or missing worker is shown."""
    with CaptureQueriesContext(connection) as queries:
        text = run("--code-only")

    assert len(queries) == 0
    assert "no worker" not in text
    assert "nobody listens" in text
