"""The root of a cascade is recorded with each of its messages, and finds them; older rows are found by their texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from signalbus.ledger import operations as ledger
from signalbus.models import StoredMessage
from signalbus.services.queries.lookup import FoundMessage, cascade_of, message_of
from signalbus.wire.message import from_body

from .bus import Bus, connect, new_signal
from .test_inspecting import run

if TYPE_CHECKING:
    from uuid import UUID

    from signalbus import Signal


@pytest.fixture
def chain(bus: Bus) -> list[Signal]:
    """Three signals: a receiver of each of the first two sends the next."""
    first, second, third = (new_signal(durable=True) for _ in range(3))
    connect(first, lambda **kwargs: second.send(None), "first")
    connect(second, lambda **kwargs: third.send(None), "second")
    connect(third, lambda **kwargs: None, "third")
    return [first, second, third]


@pytest.fixture
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables were migrated a month ago, and no older version runs."""
    monkeypatch.setattr(ledger, "roots_recorded_since", lambda: datetime.now(UTC) - timedelta(days=30))


def send_all(bus: Bus, chain: list[Signal]) -> UUID:
    """Send the first signal, deliver what follows, and return the id of its message."""
    sent = chain[0].send(None)
    for _ in chain:
        bus.work()
    assert sent.id is not None
    return sent.id


def found(id_: UUID) -> FoundMessage:
    """Return a message of the ledger."""
    message = message_of(id_)
    assert message is not None
    return message


def depth(root: FoundMessage) -> int:
    """Return the length of a cascade that is a chain."""
    return 1 + (depth(root.children[0]) if root.children else 0)


def test_each_message_of_a_cascade_records_its_root(bus: Bus, chain: list[Signal]):
    """The first one, and a message that no receiver sent, have none: their own id says as much."""
    root = send_all(bus, chain)

    roots = dict(StoredMessage.objects.values_list("signal", "root"))
    assert roots == {chain[0].name: None, chain[1].name: root, chain[2].name: root}
    assert {from_body(row.text).root for row in StoredMessage.objects.all()} == {root}


def test_a_message_outside_of_a_cascade_is_inserted_as_before(bus: Bus, chain: list[Signal]):
    """Its statement does not name the columns that it does not need, and it is one statement."""
    with transaction.atomic(), CaptureQueriesContext(connection) as statements:
        chain[0].send(None, number=1)

    assert not any("root" in each["sql"] or "more_subjects" in each["sql"] for each in statements)
    assert len(statements) == (1 if connection.vendor == "postgresql" else 2)


@pytest.mark.usefixtures("long_ago")
def test_a_cascade_is_found_by_its_root_alone(bus: Bus, chain: list[Signal]):
    """No text is searched; each message of the cascade leads to all of it."""
    root = send_all(bus, chain)

    for row in StoredMessage.objects.all():
        with CaptureQueriesContext(connection) as statements:
            cascade = cascade_of(found(row.pk))
        assert not any("LIKE" in each["sql"] for each in statements)
        assert (cascade.root.row.pk, depth(cascade.root)) == (root, 3)
        assert (cascade.is_whole, cascade.was_scanned) == (True, False)


@pytest.mark.usefixtures("long_ago")
def test_a_part_without_a_recorded_root_leads_to_the_others_by_their_texts(bus: Bus, chain: list[Signal]):
    """An older version recorded the last message; from the first one, `--scan` finds it."""
    root = send_all(bus, chain)
    StoredMessage.objects.filter(signal=chain[2].name).update(root=None)
    last = StoredMessage.objects.get(signal=chain[2].name)

    cascade = cascade_of(found(last.pk))

    assert (cascade.root.row.pk, depth(cascade.root), cascade.was_scanned) == (root, 3, True)
    assert "older versions record no root" in run("trace", last.pk)
    assert chain[2].name not in run("trace", root)
    assert chain[2].name in run("trace", root, "--scan")


def test_texts_are_searched_while_older_versions_may_have_been_sending(
    bus: Bus, chain: list[Signal], monkeypatch: pytest.MonkeyPatch
):
    """That is until a day after the migration; without a record of it, the tables were never older."""
    root = send_all(bus, chain)
    StoredMessage.objects.update(root=None)

    def scanned(since: datetime | None) -> bool:
        monkeypatch.setattr(ledger, "roots_recorded_since", lambda: since)
        cascade = cascade_of(found(root))
        assert depth(cascade.root) == (3 if cascade.was_scanned else 1)
        return cascade.was_scanned

    now = datetime.now(UTC)
    assert scanned(now)
    assert scanned(now - timedelta(hours=23))
    assert not scanned(now - timedelta(hours=25))
    assert not scanned(None)


def test_the_ledger_knows_when_roots_were_recorded_first(bus: Bus):
    """It is the time of the migration."""
    since = ledger.roots_recorded_since()

    assert since is not None
    assert timedelta() < datetime.now(UTC) - since < timedelta(days=1)


def test_a_search_of_texts_is_bounded(bus: Bus, chain: list[Signal]):
    """The answer says that there may be more."""
    root = send_all(bus, chain)
    StoredMessage.objects.update(root=None)

    cascade = cascade_of(found(root), scan=True, scanned=1)

    assert (depth(cascade.root), cascade.is_whole) == (2, False)


def test_a_worker_records_the_root_of_what_had_no_row(bus: Bus):
    """A message of a signal that is not durable gets its rows when it fails, with root and subject."""
    first, second = new_signal(durable=True), new_signal()
    connect(first, lambda **kwargs: second.send(None, number=7), "first")
    connect(second, lambda **kwargs: 1 / 0, "second")
    sent = first.send(None)
    bus.work()
    bus.work()

    assert StoredMessage.objects.get(signal=second.name).root == sent.id


def insert_as_older_version(**columns: Any) -> None:
    """Insert a message with the columns that version 0.4 knows."""
    names = ", ".join(map(connection.ops.quote_name, columns))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO signalbus_message ({names}) VALUES ({', '.join(['%s'] * len(columns))})",
            list(columns.values()),
        )


def test_older_versions_insert_rows_without_the_new_columns(bus: Bus, chain: list[Signal]):
    """Their statements go on to work, and their rows are read as messages without a recorded root."""
    root = send_all(bus, chain)
    row = StoredMessage.objects.get(signal=chain[1].name)
    StoredMessage.objects.filter(pk=row.pk).delete()

    insert_as_older_version(
        id=row.pk if connection.vendor == "postgresql" else row.pk.hex,
        signal=row.signal,
        text=row.text,
        sealed=False,
        subject="",
        created_at=connection.ops.adapt_datetimefield_value(row.created_at),
    )

    again = StoredMessage.objects.get(pk=row.pk)
    assert (again.root, again.more_subjects) == (None, None)
    assert depth(cascade_of(found(root)).root) == 3


@pytest.mark.skipif(not connection.features.supports_partial_indexes, reason="MariaDB has no partial indexes")
def test_the_messages_of_a_cascade_are_found_by_an_index(bus: Bus):
    """Messages outside of cascades are not in it."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # which is quicker for no rows at all
        plan = StoredMessage.objects.filter(root="0c5b2f3e-7c1e-5a57-8a3d-1c2d3e4f5a6b").order_by("id").explain()

    assert "signalbus_cascade" in plan
