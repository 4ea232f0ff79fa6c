"""``manage.py signalbus rehearse`` runs a receiver, tells what it would do, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from django.core import mail
from django.core.exceptions import PermissionDenied
from django.core.mail import EmailMessage, send_mail, send_mass_mail
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from signalbus import Signal, listen
from signalbus.events import unlisten
from signalbus.exceptions import ConfigurationError
from signalbus.models import Delivery, StoredMessage
from signalbus.services.actors import Actor, code_actor
from signalbus.services.changes import rehearsal
from signalbus.services.changes.rehearsal import rehearse_beside_others
from signalbus.services.queries.lookup import message_of
from tasks.admissions.models import Academy
from tests.servers import wait_until

from .bus import Bus, connect, new_signal, only

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.models import Delivery as Row


def rehearse(row: Row, *options: str) -> str:
    """Run the command, and return what it prints."""
    out = io.StringIO()
    call_command("signalbus", "rehearse", str(row.pk), *options, stdout=out)
    return out.getvalue()


def failed(bus: Bus, receiver: Callable[..., Any], **payload: Any) -> Delivery:
    """Send to a receiver that fails before it is replaced by another one, and return the delivery."""
    signal = new_signal(durable=True)
    broken = [True]

    def replaced(**kwargs: Any) -> None:
        if broken:
            raise ValueError("before the fix")
        receiver(**kwargs)

    connect(signal, replaced, "replaced")
    signal.send(Academy, **payload)
    bus.work()
    broken.clear()
    return only()


def test_rehearse_prints_the_rows_that_it_rolls_back(bus: Bus):
    """Model changes, the statements, and the callbacks of the commit, which do not run."""
    called = []

    def on_commit() -> None:
        called.append(True)

    def writes(instance: Academy, **kwargs: Any) -> None:
        Academy.objects.create(name="new", slug="new")
        Academy.objects.filter(pk=instance.pk).update(name="changed")
        instance.delete()
        transaction.on_commit(on_commit)

    academy = Academy.objects.create(name="A", slug="a")
    row = failed(bus, writes, instance=academy)
    before = Delivery.objects.values().get()

    shown = rehearse(row)

    assert "attempt 2" in shown
    assert "It would succeed." in shown
    assert "create admissions.Academy" in shown
    assert f"delete admissions.Academy {academy.pk}" in shown
    assert "default: INSERT INTO" in shown
    assert "default: UPDATE" in shown
    assert "on_commit" in shown
    assert not called
    assert list(Academy.objects.values_list("name", flat=True)) == ["A"]
    assert Delivery.objects.values().get() == before
    found = json.loads(rehearse(row, "--json"))
    assert (found["schema"], found["error"], len(found["changes"])) == (1, "", 2)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")  # Django 6.1: MAILERS
def test_rehearse_prints_signals_and_mail_and_sends_none(bus: Bus):
    """Signals leave no row and no message, mail no message in the outbox."""
    child = new_signal(durable=True)
    connect(child, lambda **kwargs: None, "further")

    def sends(**kwargs: Any) -> None:
        child.send(None, instance=Academy(pk=7))
        send_mail("one", "text", "a@example.com", ["b@example.com"])
        send_mass_mail([("two", "text", "a@example.com", ["c@example.com"])])
        mail.get_connection().send_messages([EmailMessage("three", "text", to=["d@example.com"])])

    row = failed(bus, sends)

    shown = rehearse(row)

    assert f"{child.name} about admissions.Academy 7 to further" in shown
    for line in ("'one' to b@example.com", "'two' to c@example.com", "'three' to d@example.com"):
        assert line in shown
    assert mail.outbox == []
    assert StoredMessage.objects.count() == 1
    assert bus.work() == 0
    send_mail("after", "text", "a@example.com", ["b@example.com"])
    assert [each.subject for each in mail.outbox] == ["after"]


def test_connections_are_blocked_and_named(bus: Bus):
    """A receiver cannot reach a server, even if it catches the error; afterwards the process can."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def calls(**kwargs: Any) -> None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1)
            except OSError:
                logging.getLogger("tests").debug("caught")

        row = failed(bus, calls)
        shown = rehearse(row)

        assert f"127.0.0.1:{port}" in shown
        assert "It would succeed." in shown
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass


def test_rehearse_of_a_failing_receiver_has_exit_code_1(bus: Bus):
    """The error, on demand the traceback; no attempt is counted, and no event emitted."""

    def fails(**kwargs: Any) -> None:
        Academy.objects.create(name="new", slug="new")
        raise KeyError("slug")

    row = failed(bus, fails)
    heard: list[str] = []

    def listener(event: Any) -> None:
        heard.append(event.kind)

    listen()(listener)
    out = io.StringIO()
    try:
        with pytest.raises(CommandError, match="It would fail"):
            call_command("signalbus", "rehearse", str(row.pk), "--traceback", stdout=out)
    finally:
        unlisten(listener)

    assert "It would fail: KeyError: 'slug'" in out.getvalue()
    assert 'raise KeyError("slug")' in out.getvalue()
    assert "create admissions.Academy" in out.getvalue()
    assert not heard
    assert only().attempts == 1
    assert not Academy.objects.exists()


def test_a_broken_transaction_is_rolled_back(bus: Bus):
    """A database error that the receiver caused, or a statement of its own transaction, does not stay."""

    def breaks(**kwargs: Any) -> None:
        with transaction.atomic():
            Academy.objects.create(name="new", slug="new")
        with connection.cursor() as cursor:
            cursor.execute("SELECT nonsense FROM nowhere")

    row = failed(bus, breaks)

    with pytest.raises(CommandError, match="It would fail"):
        rehearse(row)
    assert not Academy.objects.exists()


def test_bad_input_rehearse_says_why_it_cannot_run(bus: Bus):
    """An unknown id, the id of a message, a receiver that this process does not have."""
    row = failed(bus, lambda **kwargs: None)
    with pytest.raises(CommandError, match="is no delivery in the ledger"):
        call_command("signalbus", "rehearse", str(row.message_id))
    Delivery.objects.update(receiver="gone")
    with pytest.raises(CommandError, match="gone is not connected to"):
        rehearse(only())


def test_a_rehearsed_receiver_gets_the_arguments_of_a_worker(bus: Bus):
    """The receiver gets the arguments that a worker would give it."""
    seen: dict[str, Any] = {}
    row = failed(bus, lambda **kwargs: seen.update(kwargs), number=1)

    rehearse(row)

    assert isinstance(seen.pop("signal"), Signal)
    assert seen == {"sender": Academy, "number": 1}


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")  # Django 6.1: MAILERS
def test_a_rehearsal_beside_other_work_leaves_that_work_alone(bus: Bus):
    """Mail, connections and rows of other threads are theirs: they take effect, and are not reported."""
    goes_on, is_over = threading.Event(), threading.Event()

    def receiver(**kwargs: Any) -> None:
        Academy.objects.create(name="rehearsed", slug="rehearsed")
        send_mail("rehearsed", "", None, ["ana@example.com"])
        with pytest.raises(OSError, match="is blocked"):
            socket.create_connection(("127.0.0.1", 9))
        goes_on.set()
        assert is_over.wait(10)

    row = failed(bus, receiver)
    found = message_of(row.pk)
    assert found is not None
    results: list[Any] = []
    rehearsing = threading.Thread(
        target=lambda: results.append(rehearse_beside_others(found, row, actor=code_actor("ana")))
    )
    rehearsing.start()
    assert goes_on.wait(10)
    send_mail("of the other thread", "", None, ["bob@example.com"])
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    with pytest.raises(ConfigurationError, match="rehearses another delivery"):
        rehearse_beside_others(found, row, actor=code_actor("bob"))
    is_over.set()
    rehearsing.join(10)

    assert [message.subject for message in mail.outbox] == ["of the other thread"]
    (result,) = results
    assert result.error == ""
    assert result.mails == ["'rehearsed' to ana@example.com"]
    assert result.sockets == ["127.0.0.1:9"]
    assert [change.split()[0] for change in result.changes] == ["create"]
    assert not Academy.objects.exists()


def test_a_rehearsal_that_takes_too_long_is_not_waited_for(bus: Bus, monkeypatch: pytest.MonkeyPatch):
    """It goes on in its thread, and is rolled back at its end."""
    monkeypatch.setattr(rehearsal, "PATIENCE", 0.01)
    is_over, ended = threading.Event(), threading.Event()

    def receiver(**kwargs: Any) -> None:
        Academy.objects.create(name="rehearsed", slug="rehearsed")
        is_over.wait(10)
        ended.set()

    row = failed(bus, receiver)
    found = message_of(row.pk)
    assert found is not None

    assert rehearse_beside_others(found, row, actor=code_actor("ana")) is None
    is_over.set()
    assert ended.wait(10)
    wait_until(lambda: not rehearsal._one_at_a_time.locked(), what="the end of the rehearsal")
    assert not Academy.objects.exists()


def test_a_rehearsal_needs_the_permission_to_operate(bus: Bus):
    """The service checks it, whoever calls."""
    row = failed(bus, lambda **kwargs: pytest.fail("it ran"))
    found = message_of(row.pk)
    assert found is not None

    with pytest.raises(PermissionDenied):
        rehearse_beside_others(found, row, actor=Actor("eve", "admin", allows=lambda permission: False))
