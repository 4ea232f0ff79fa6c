"""``SIGNALBUS["CARRY"]`` captures context at send() and restores it around each delivery, before rows are loaded."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models.signals import post_save
from django.test import override_settings
from django.utils.functional import SimpleLazyObject

from signalbus import Reject, Retry, Signal, disconnect, receiver
from signalbus.exceptions import PayloadError
from signalbus.models import Delivery
from signalbus.receiving.process.receiver_runtimes import ReceiverRuntimes
from signalbus.receiving.running import group_commit, grouping
from signalbus.services.actors import code_actor
from signalbus.services.changes.bulk_operations import start_operation
from signalbus.services.queries.lookup import filter_from
from signalbus.testing import captured, immediate
from tasks.admissions.models import Academy
from tests.documents.reading import ROOT, examples

from .bus import Bus, connect, fails, new_signal, only, rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

realm: ContextVar[str | None] = ContextVar("realm", default=None)


class Realm:
    """A carrier of a context variable."""

    name = "realm"

    def capture(self) -> str | None:
        """Return the realm."""
        return realm.get()

    @contextmanager
    def restore(self, value: str) -> Iterator[None]:
        """Enter the realm."""
        token = realm.set(value)
        try:
            yield
        finally:
            realm.reset(token)


class RealmThatFails(Realm):
    """A carrier that cannot restore."""

    @contextmanager
    def restore(self, value: str) -> Iterator[None]:
        """Fail."""
        if value:
            raise LookupError(f"no realm {value}")
        yield


@contextmanager
def inside(name: str | None) -> Iterator[None]:
    """Send from a realm."""
    token = realm.set(name)
    try:
        yield
    finally:
        realm.reset(token)


@pytest.fixture(autouse=True)
def carried() -> Iterator[None]:
    """Configure the carrier."""
    with override_settings(SIGNALBUS={"CARRY": [Realm()]}):
        yield


@pytest.fixture
def seen() -> list[Any]:
    """The realm in which each receiver ran."""
    return []


SENDS: dict[str, Callable[[Signal], object]] = {
    "send": lambda signal: signal.send(None, number=1),
    "send_robust": lambda signal: signal.send_robust(None, number=1),
    "send_many": lambda signal: signal.send_many(None, [{"number": 1}]),
    "asend": lambda signal: async_to_sync(signal.asend)(None, number=1),
    "transaction": lambda signal: transaction.atomic()(signal.send)(None, number=1),
}


OPTIONS: list[dict[str, Any]] = [{"durable": True}, {"open": True}, {"durable": True, "unique": True}]


@pytest.mark.parametrize(
    ("form", "options"), [*((form, {}) for form in SENDS), *(("send", options) for options in OPTIONS)], ids=str
)
def test_each_form_of_sending_captures_the_context(bus: Bus, seen, form: str, options: dict[str, Any]):
    """The receiver runs in the sender's context, which ends with it."""
    signal = new_signal(**options)
    connect(signal, lambda **kwargs: seen.append(realm.get()), "receiver")
    with inside("alpha"):
        SENDS[form](signal)
    bus.work()
    assert seen == ["alpha"]
    assert realm.get() is None


@pytest.mark.parametrize("policy", [{"atomic": False}, {"timeout": 30}, {"async": True}, {"ordered": True}], ids=str)
def test_each_kind_of_receiver_runs_in_the_context(bus: Bus, seen, policy: dict[str, Any]):
    """A receiver may have a transaction, a timeout or an order, or be a coroutine."""
    signal = new_signal(durable=True, **({"ordered_by": "number"} if policy.pop("ordered", False) else {}))

    async def coroutine(**kwargs: Any) -> None:
        seen.append(realm.get())

    is_async = policy.pop("async", False)
    connect(signal, coroutine if is_async else lambda **kwargs: seen.append(realm.get()), "receiver", **policy)
    for name in ("alpha", "beta", None):
        with inside(name):
            signal.send(None, number=1)
    bus.work()
    assert seen == ["alpha", "beta", None]


def test_a_retry_and_a_later_delivery_run_in_the_context(bus: Bus, seen):
    """The ledger's text has it."""
    signal = new_signal()

    def receiver_that_fails_once(**kwargs: Any) -> None:
        seen.append(realm.get())
        if len(seen) == 1:
            raise ValueError

    connect(signal, receiver_that_fails_once, "receiver")
    with inside("alpha"):
        signal.send(None)
    bus.work()
    bus.come_again()
    with inside("beta"):
        signal.send_later(timedelta(hours=1), None)
    bus.come_again()
    assert seen == ["alpha", "alpha", "beta"]


def test_a_receivers_messages_carry_the_restored_context(bus: Bus, seen):
    """A cascade keeps the context of its root, also from a callback of on_commit."""
    first, second = new_signal(durable=True), new_signal(durable=True)

    def pass_on(**kwargs: Any) -> None:
        second.send(None)
        transaction.on_commit(lambda: second.send(None))

    connect(first, pass_on, "first")
    connect(second, lambda **kwargs: seen.append(realm.get()), "second")
    with inside("alpha"):
        first.send(None)
    bus.work()
    bus.work()
    assert seen == ["alpha", "alpha"]


@pytest.mark.parametrize("policy", [{}, {"atomic": False}], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_callbacks_of_on_commit_run_in_the_context(bus: Bus, seen, policy: dict[str, Any], count: int):
    """The receiver may run alone or in a group commit."""
    signal = new_signal(durable=True)

    def leave_a_callback(**kwargs: Any) -> None:
        with transaction.atomic():
            transaction.on_commit(lambda: seen.append(realm.get()))

    connect(signal, leave_a_callback, "receiver", **policy)
    with inside("alpha"):
        signal.send_many(None, [{}] * count)
    bus.work()
    assert seen == ["alpha"] * count
    assert rows() == [("receiver", "done", 1)] * count


def test_deliveries_of_different_context_share_no_commit(bus: Bus, seen, monkeypatch):
    """Deliveries of the same context do."""
    together: list[list[Any]] = []

    class SharedCommit(group_commit.SharedCommit):
        def __init__(self, attempts: list[Any], *args: Any) -> None:
            together.append([attempt.message.context for attempt in attempts])
            super().__init__(attempts, *args)

    monkeypatch.setattr(grouping, "SharedCommit", SharedCommit)
    monkeypatch.setattr(ReceiverRuntimes, "expected", lambda self, receiver: 0.001)
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: seen.append(realm.get()), "receiver")
    with transaction.atomic():
        for name in ("alpha", "beta", None, "alpha", "beta", None):
            with inside(name):
                signal.send(None)
    bus.work()
    assert sorted(map(str, seen)) == ["None", "None", "alpha", "alpha", "beta", "beta"]
    assert rows() == [("receiver", "done", 1)] * 6
    if connection.vendor != "mysql":
        assert sorted(map(str, together)) == [
            "[{'realm': 'alpha'}, {'realm': 'alpha'}]",
            "[{'realm': 'beta'}, {'realm': 'beta'}]",
            "[{}, {}]",
        ]


@pytest.mark.parametrize("lazy", [False, True])
def test_the_context_is_captured_in_the_senders_thread(bus: Bus, lazy: bool):
    """An event loop may run, and another thread record: a connection, and so a tenant, belongs to one thread."""

    class Thread(Realm):
        name = "thread"

        def capture(self) -> Any:
            return threading.get_ident()

    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")

    async def send() -> int:
        signal.send(None, row=SimpleLazyObject(Academy.objects.get) if lazy else None)
        return threading.get_ident()

    Academy.objects.create(name="A", slug="a")
    with override_settings(SIGNALBUS={"CARRY": [Thread()]}):
        sender = asyncio.run(send())
    ((text,),) = bus.take()
    assert f'"e":{{"thread":{sender}}}' in text


def test_unique_messages_of_another_context_are_not_equal(bus: Bus, seen):
    """A waiting message does not stand for another tenant's."""
    signal = new_signal(durable=True, unique="number")
    connect(signal, lambda **kwargs: seen.append(realm.get()), "receiver")
    for name in ("alpha", "beta", "alpha", None):
        with inside(name):
            signal.send(None, number=1)
    bus.work()
    assert sorted(map(str, seen)) == ["None", "alpha", "beta"]


def test_a_worker_without_the_carrier_parks_the_message(bus: Bus, seen, caplog):
    """The reason names the carrier; a worker that has it delivers the message."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: seen.append(realm.get()), "receiver")
    with inside("alpha"):
        signal.send(None)
    with override_settings(SIGNALBUS={}):
        bus.work()
    assert (only().state, seen) == ("parked", [])
    assert "the carrier 'realm'" in only().error
    bus.come_again()
    assert (only().state, only().attempts, seen) == ("done", 1, ["alpha"])


def test_older_workers_park_a_message_with_context(bus: Bus):
    """A message without context is the same as before, to the byte."""
    signal = new_signal()
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    with inside("alpha"):
        signal.send(None)
    (plain,), (carried,) = bus.take()
    assert ".1\n{" in plain
    assert '"e":' not in plain
    assert ".3\n{" in carried
    assert '"e":{"realm":"alpha"}' in carried


def test_an_error_of_restore_is_a_failed_attempt(bus: Bus, seen):
    """The traceback names the carrier; the receiver runs once the carrier works."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: seen.append(realm.get()), "receiver", retry=Retry(max_attempts=3))
    with inside("alpha"):
        signal.send(None)
    with override_settings(SIGNALBUS={"CARRY": [RealmThatFails()]}):
        bus.work()
    row = only()
    assert (row.state, row.attempts, seen) == ("pending", 1, [])
    assert "LookupError: no realm alpha" in row.error
    assert "restore() of the carrier 'realm'" in row.traceback
    bus.come_again()
    assert (only().state, seen) == ("done", ["alpha"])


@pytest.mark.parametrize("suppress", [True, False])
def test_a_carrier_cannot_hide_a_receivers_error(bus: Bus, suppress: bool):
    """The carrier may swallow the error of the receiver, or fail after it."""

    class Meddling(Realm):
        @contextmanager
        def restore(self, value: str) -> Iterator[None]:
            try:
                yield
            except Reject:
                if not suppress:
                    raise RuntimeError("cannot leave") from None

    signal = new_signal(durable=True)

    def reject(**kwargs: Any) -> None:
        raise Reject("never")

    connect(signal, reject, "receiver")
    with override_settings(SIGNALBUS={"CARRY": [Meddling()]}):
        with inside("alpha"):
            signal.send(None)
        bus.work()
    assert (only().state, only().error) == ("dead", "Reject: never")


@pytest.mark.parametrize("value", [{1: 2}, (1,), float("nan"), object()], ids=["integer key", "tuple", "nan", "object"])
def test_a_captured_value_must_be_json(bus: Bus, value: object):
    """The send raises a PayloadError that names the carrier; nothing is sent."""

    class Odd(Realm):
        def capture(self) -> Any:
            return value

    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    with override_settings(SIGNALBUS={"CARRY": [Odd()]}):
        with pytest.raises(PayloadError, match=r"SIGNALBUS\[\"CARRY\"\] 'realm'"):
            signal.send(None)
        ((_, response),) = signal.send_robust(None)
        assert isinstance(response, PayloadError)
    assert (bus.take(), rows()) == ([], [("receiver", "dead", 0)])


def test_an_error_of_capture_fails_the_send(bus: Bus):
    """The error of the carrier is the cause of the PayloadError; nothing is sent."""

    class Broken(Realm):
        def capture(self) -> str:
            raise LookupError("no realm")

    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: None, "receiver")
    with override_settings(SIGNALBUS={"CARRY": [Broken()]}), pytest.raises(PayloadError, match="LookupError") as caught:
        signal.send(None)
    assert isinstance(caught.value.__cause__, LookupError)
    assert (bus.take(), rows()) == ([], [])


def test_bridges_carry_the_context(bus: Bus, seen):
    """A plain Django signal is received in its sender's context."""

    def on_save(sender: Any, **kwargs: Any) -> None:
        seen.append(realm.get())

    receiver(post_save, sender=Academy, dispatch_uid="on_save")(on_save)
    try:
        with inside("alpha"):
            Academy.objects.create(name="A", slug="a")
        bus.work()
    finally:
        disconnect(post_save, on_save, sender=Academy, dispatch_uid="on_save")
    assert seen == ["alpha"]


def test_the_tools_for_tests_restore_the_context(bus: Bus, seen):
    """deliver_all() and immediate() deliver as a worker does."""
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: seen.append(realm.get()), "receiver")
    with captured() as sent:
        with inside("alpha"):
            signal.send(None)
        assert [message.context for message in sent] == [{"realm": "alpha"}]
        sent.deliver_all()
    with immediate(), inside("beta"):
        signal.send(None)
    assert seen == ["alpha", "beta"]


def test_failed_shows_the_context(bus: Bus):
    """JSON has the values."""
    signal = new_signal(durable=True)
    fails(signal, ValueError("no"), retry=Retry(max_attempts=1))
    with inside("alpha"):
        signal.send(None)
    bus.work()
    out = io.StringIO()
    call_command("signalbus", "failed", stdout=out)
    assert f"{signal.name} -> failing (realm: alpha)" in out.getvalue()
    out = io.StringIO()
    call_command("signalbus", "failed", "--json", stdout=out)
    assert [row["context"] for row in json.loads(out.getvalue())] == [{"realm": "alpha"}]


def test_secrets_of_a_context_are_hidden_from_people(bus: Bus):
    """`failed` and `show` hide values by their keys, as they do in payloads."""

    class Session(Realm):
        def capture(self) -> Any:
            return {"id": 7, "user": {"api_token": "hunter2"}}

    signal = new_signal(durable=True)
    fails(signal, ValueError("no"), retry=Retry(max_attempts=1))
    with override_settings(SIGNALBUS={"CARRY": [Session()]}):
        signal.send(None)
    bus.work()
    for command in (["failed"], ["failed", "--json"], ["show", str(only().pk)], ["show", str(only().pk), "--json"]):
        out = io.StringIO()
        call_command("signalbus", *command, stdout=out)
        assert "api_token" in out.getvalue()
        assert "hunter2" not in out.getvalue()


@pytest.mark.parametrize("means", ["ids", "operation"])
def test_what_people_retry_runs_in_its_senders_context(bus: Bus, seen, means: str):
    """The context of the process in which they retry does not matter, whether it is one delivery or many."""
    signal = new_signal(durable=True)

    def receiver_that_fails_at_first(**kwargs: Any) -> None:
        seen.append(realm.get())
        if len(seen) <= 2:
            raise ValueError

    connect(signal, receiver_that_fails_at_first, "receiver", retry=Retry(max_attempts=1))
    for name in ("alpha", "beta"):
        with inside(name):
            signal.send(None)
    bus.work()
    with inside("gamma"):
        if means == "ids":
            call_command("signalbus", "retry", *map(str, Delivery.objects.values_list("pk", flat=True)))
        else:
            start_operation("retry", filter_from(["state:dead"]), actor=code_actor("test"), reason="")
            for _ in range(3):
                bus.come_again()
    bus.come_again()
    assert sorted(seen[2:]) == ["alpha", "beta"]


def test_one_send_many_has_one_context(bus: Bus, seen):
    """It is captured once, for all messages of the call."""

    class Counted(Realm):
        def capture(self) -> str:
            captured_at.append(len(captured_at))
            return f"call {len(captured_at)}"

    captured_at: list[int] = []
    signal = new_signal(durable=True)
    connect(signal, lambda **kwargs: seen.append(realm.get()), "receiver")
    with override_settings(SIGNALBUS={"CARRY": [Counted()]}):
        signal.send_many(None, [{"number": number} for number in range(3)])
        bus.work()
    assert seen == ["call 1"] * 3


@pytest.fixture
def schemas(bus: Bus) -> Iterator[None]:
    """Two tenants' schemas on PostgreSQL, each with a row of the same key."""
    if connection.vendor != "postgresql":
        pytest.skip("it has schemas")
    with connection.cursor() as cursor:
        for tenant in ("alpha", "beta"):
            cursor.execute(f"CREATE SCHEMA {tenant}")
            cursor.execute(f"CREATE TABLE {tenant}.admissions_academy (LIKE public.admissions_academy INCLUDING ALL)")
            cursor.execute(f"INSERT INTO {tenant}.admissions_academy VALUES (1, 'of {tenant}', 'a')")
    yield
    with connection.cursor() as cursor:
        cursor.execute("SET search_path TO public")


@pytest.fixture
def search_path() -> Any:
    """The carrier that docs/context.md shows."""
    module: dict[str, Any] = {}
    exec(examples(ROOT / "docs" / "context.md")[0]["mysite/tenants.py"], module)
    return module["SearchPath"]()


@pytest.mark.parametrize("atomic", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_the_row_is_that_of_the_senders_tenant(bus: Bus, schemas, search_path, durable: bool, atomic: bool):
    """A reference is loaded in the sender's schema, and the ledger's rows are settled outside of it."""
    signal, seen = new_signal(durable=durable), list[tuple[str, str]]()

    def on_saved(instance: Academy, name: str, **kwargs: Any) -> None:
        seen.append((name, instance.name))
        if len(seen) == 1:
            raise ValueError(name)

    connect(signal, on_saved, "receiver", atomic=atomic)
    with override_settings(SIGNALBUS={"CARRY": [search_path]}):
        with transaction.atomic():
            for tenant in ("alpha", "beta"):
                search_path.search(f"{tenant}, public")
                instance = Academy.objects.get(pk=1)
                signal.send(Academy, instance=instance, name=instance.name)
            search_path.search("public")
        bus.work()
        bus.come_again()
        assert [name for name, _ in seen] == [got for _, got in seen]
        assert sorted(set(seen)) == [("of alpha", "of alpha"), ("of beta", "of beta")]
        assert set(Delivery.objects.values_list("state", flat=True)) == {"done"}
        assert search_path.capture() == "public"
