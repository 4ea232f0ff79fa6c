"""The robust forms never raise: a payload that cannot travel is a response, an error in the log and a dead row."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection, transaction
from django.test import override_settings

from signalbus import Signal
from signalbus.exceptions import CascadeError, ConfigurationError, PayloadError
from signalbus.ledger import attempts, operations, sweeps
from signalbus.models import Delivery, State
from signalbus.testing import captured
from tasks.admissions.models import Academy

from .bus import Bus, connect, new_signal, only, rows
from .test_several_databases import other
from .test_transactions import rolled_back

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["other"]

FORMS = pytest.mark.parametrize("form", ["send_robust", "asend_robust"])


def on_sale(**kwargs):
    """Receive in a worker."""


def on_sale_too(**kwargs):
    """Receive through another queue."""


@pytest.fixture
def signal() -> Signal:
    """A signal with two receivers in workers."""
    signal = new_signal()
    connect(signal, on_sale, "robust.first")
    connect(signal, on_sale_too, "robust.second", queue="email")
    return signal


def send(signal: Signal, form: str = "send_robust", **payload: Any) -> Any:
    """Send in one of the robust forms."""
    function = getattr(signal, form)
    # Not asyncio.run(): asgiref's thread would keep its connection to the database of an earlier test.
    return (async_to_sync(function) if form == "asend_robust" else function)(None, **payload)


def command(*arguments: object) -> str:
    """Run ``manage.py signalbus``, and return what it prints."""
    out = io.StringIO()
    call_command("signalbus", *map(str, arguments), stdout=out)
    return out.getvalue()


@FORMS
def test_the_error_is_the_response_of_each_receiver(bus: Bus, signal: Signal, form: str, caplog):
    """Each recipient has the PayloadError as its response; nothing is sent, and it is logged."""
    sent = send(signal, form, context={"lock": object()})

    assert [receiver for receiver, _ in sent] == [on_sale, on_sale_too]
    assert all(isinstance(error, PayloadError) and error.path == "context.lock" for _, error in sent)
    assert sent.id is None
    assert bus.take() == bus.take("email") == []
    (record,) = [record for record in caplog.records if record.name == "signalbus"]
    assert record.levelno == logging.ERROR
    assert "context.lock" in record.getMessage()
    assert "robust.first, robust.second" in record.getMessage()
    assert record.exc_info is not None


@FORMS
def test_the_error_is_recorded_as_dead_deliveries(bus: Bus, signal: Signal, form: str):
    """`failed` lists one for each receiver, with signal, path and remedy; it can be discarded, not retried."""
    send(signal, form, context={"lock": object()})

    assert rows() == [("robust.first", "dead", 0), ("robust.second", "dead", 0)]
    listed = command("failed")
    assert f"{signal.name} -> robust.first" in listed
    assert "PayloadError: context.lock: " in listed
    second = Delivery.objects.get(receiver="robust.second")
    assert (second.queue, second.ended_at is None, second.failed_at is None) == ("email", False, False)
    assert "PayloadError: context.lock" in second.traceback
    assert operations.retry(None) == 0
    with pytest.raises(CommandError, match="can only be discarded"):
        command("retry", second.pk)
    command("discard", second.pk)
    assert rows() == [("robust.first", "dead", 0), ("robust.second", "discarded", 0)]
    assert operations.retry([second.pk]) == 0


def test_a_purge_does_not_delete_dead_deliveries_of_robust_sends(bus: Bus, signal: Signal):
    """Unlike refused texts, such deliveries wait until a person discards them."""
    send(signal, lock=object())
    assert sweeps.purge(0) == 0


def test_dead_deliveries_of_robust_sends_are_no_refused_texts(bus: Bus):
    """An open signal's dead row names no receiver, and is no refused text either."""
    send(new_signal(open=True), lock=object())
    with override_settings(SIGNALBUS={"KEEP_REFUSED": 1}):
        attempts.refuse("garbage", "no text of ours", None)
    assert Delivery.objects.filter(message__signal="", message__text="garbage").count() == 1


@FORMS
def test_inline_receivers_still_run(bus: Bus, signal: Signal, form: str):
    """The error does not concern them."""
    signal.connect(echo, inline=True)
    lock = object()
    sent = send(signal, form, lock=lock)
    assert [(receiver, type(response)) for receiver, response in sent] == [
        (echo, object),
        (on_sale, PayloadError),
        (on_sale_too, PayloadError),
    ]
    assert sent[0][1] is lock


def echo(lock, **kwargs):
    """Respond with the payload."""
    return lock


@FORMS
def test_a_cascade_too_deep_is_a_response(bus: Bus, signal: Signal, form: str):
    """The error of a cascade's limit is recorded, too."""
    failures: list[Any] = []
    outer = new_signal()

    def receiver(**kwargs):
        failures.extend(error for _, error in send(signal, form))

    connect(outer, receiver, "robust.outer", atomic=False)
    with override_settings(SIGNALBUS={"MAX_CASCADE": 1}):
        outer.send(None)
        bus.work()

    assert [type(error) for error in failures] == [CascadeError, CascadeError]
    assert rows() == [("robust.first", "dead", 0), ("robust.second", "dead", 0)]


@FORMS
def test_a_wrong_configuration_is_a_response(bus: Bus, form: str):
    """Two receivers of one id, which `send` refuses, do not stop a `save()` that sends robustly."""
    crowded = new_signal()
    connect(crowded, on_sale, "robust.same")
    connect(crowded, on_sale_too, "robust.same")
    ((receiver, error),) = send(crowded, form)
    assert receiver is on_sale
    assert isinstance(error, ConfigurationError)
    assert rows() == [("robust.same", "dead", 0)]


@FORMS
def test_a_signal_without_a_name_is_a_response(bus: Bus, form: str):
    """The dead delivery is recorded under the place of the signal."""
    nameless = [Signal()]
    connect(nameless[0], on_sale, "robust.nameless")
    ((_, error),) = send(nameless[0], form)
    assert isinstance(error, ConfigurationError)
    assert only().message.signal == nameless[0].place


@FORMS
def test_an_error_of_a_values_code_is_a_response(bus: Bus, signal: Signal, form: str):
    """A value's code may raise anything while it is encoded."""

    queryset = Academy.objects.extra(where=["no_such_column = 1"])
    responses = send(signal, form, rows=queryset)
    assert [isinstance(error, DatabaseError) for _, error in responses] == [True, True]
    assert rows() == [("robust.first", "dead", 0), ("robust.second", "dead", 0)]


def test_a_rollback_removes_the_dead_row(bus: Bus, signal: Signal):
    """Promise 1 holds for it."""
    with rolled_back():
        send(signal, lock=object())
        assert len(rows()) == 2
    assert rows() == []
    with transaction.atomic():
        send(signal, lock=object())
    assert len(rows()) == 2


def test_another_databases_commit_is_waited_for(bus: Bus, signal: Signal, other: str):
    """If only another database is in a transaction, its commit decides."""
    with rolled_back(using=other):
        send(signal, lock=object())
    assert rows() == []
    with transaction.atomic(using=other):
        send(signal, lock=object())
        assert rows() == []
    assert len(rows()) == 2


def test_an_error_of_the_ledger_does_not_break_the_transaction(bus: Bus, signal: Signal, caplog):
    """The sender's transaction commits; a message that could not be recorded is logged as lost."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE signalbus_delivery RENAME TO gone")
        sent = send(signal, lock=object())
        Academy.objects.create(name="A", slug="a")
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE gone RENAME TO signalbus_delivery")

    assert Academy.objects.filter(slug="a").exists()
    assert len(sent) == 2
    assert rows() == []
    assert "robust.first" in next(r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL)


def test_in_a_broken_transaction_nothing_is_raised(bus: Bus, signal: Signal):
    """Nothing can be written in it either."""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        with pytest.raises(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT no_such_column")
        transaction.set_rollback(True)
        assert len(send(signal, lock=object())) == 2
        raise ZeroDivisionError
    assert rows() == []


def test_a_manual_transaction_is_a_response_too(bus: Bus, signal: Signal):
    """Under set_autocommit(False) the commit is unknown, so the message is recorded as dead."""
    transaction.set_autocommit(False)
    try:
        sent = send(signal, number=1)
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert [type(error) for _, error in sent] == [transaction.TransactionManagementError] * 2
    assert bus.take() == []
    assert [row.state for row in Delivery.objects.all()] == [State.DEAD, State.DEAD]


def test_a_test_that_captures_has_no_dead_rows(bus: Bus, signal: Signal):
    """A ``captured()`` block sends nothing; the response has the error."""
    with captured() as sent:
        responses = send(signal, lock=object())
    assert len(responses) == 2
    assert not sent
    assert rows() == []


@pytest.mark.parametrize(
    "many",
    [lambda signal: signal.send(None, lock=object()), lambda signal: signal.send_many(None, [{"lock": object()}])],
)
def test_send_and_asend_raise_the_error(bus: Bus, signal: Signal, many: Callable[[Signal], Any]):
    """These forms leave no row and no message."""
    with pytest.raises(PayloadError, match="lock"):
        many(signal)
    assert rows() == []
