"""Each change of a delivery's state has an event: scenarios that compare what is reported with the rows.

`PLACES` names each function of the ledger that writes a state, and the scenarios that call it. A new one fails
`test_each_function_that_writes_a_state_has_a_scenario` until it has an event, and a scenario here.
"""

from __future__ import annotations

import ast
import re
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.test import override_settings

from signalbus import Reject, Retry, cancel
from signalbus.broker import publisher
from signalbus.events import KINDS, Event
from signalbus.ledger import attempts, operations
from signalbus.ledger.attempts.pauses import held_by
from signalbus.ledger.base.clock import Now
from signalbus.ledger.operations import failed_deliveries
from signalbus.models import Delivery, State, StoredMessage
from signalbus.receiving.process.receiver_runtimes import runtimes
from signalbus.receiving.routing.batch import deliver
from signalbus.receiving.running import gates, group_commit, sequencing
from signalbus.receiving.settling import outcome
from signalbus.receiving.sweeping.due_publication import sweep
from tasks.admissions.models import Academy

from .bus import QUEUE, Bus, connect, fails, let_wait, new_signal, only
from .test_transactions import rolled_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from signalbus import Signal

LEDGER = Path(attempts.__file__).parents[1]
SQL = re.compile(r"(?:^|SET )state = ")

# The states that a row may have while this is the last event of its delivery.
STATES: dict[str, set[str]] = {
    "recorded": {"published", "pending", "parked", "done", "failed", "dead", "skipped"},  # as its message says, or next
    "published": {"published"},
    "claimed": {"running"},
    "done": {"done"},
    "failed": {"pending"},
    "dead": {"dead"},
    "skipped": {"skipped"},
    "parked": {"parked"},
    "held": {"held"},
    "discarded": {"discarded"},
    "retried": {"pending"},
    "requeued": {"pending", "published"},
}


class Scene(NamedTuple):
    """What a scenario works with.

    Args:
        bus: the broker.
        patch: pytest's.
        signals: those that are kept alive until its end.
    """

    bus: Bus
    patch: pytest.MonkeyPatch
    signals: list[Signal]

    def signal(self, **options: Any) -> Signal:
        """Return a signal."""
        signal = new_signal(**options)
        self.signals.append(signal)
        return signal

    def receiver(self, function: Callable[..., Any] = lambda **kwargs: None, **options: Any) -> Signal:
        """Return a durable signal with a receiver."""
        signal = self.signal(durable=True)
        connect(signal, function, "receiver", **options)
        return signal

    def share_commits(self) -> None:
        """Let deliveries run in a group commit, however slow this machine is."""
        self.patch.setattr(runtimes, "expected", lambda receiver: 0.0)
        self.patch.setattr(runtimes, "_alone_until", {})
        self.patch.setattr(group_commit, "BRIEF", 60.0)
        self.patch.setattr(group_commit, "LIMITS", dict.fromkeys(group_commit.LIMITS, 60.0))

    @contextmanager
    def held(self, reason: str = "paused") -> Iterator[None]:
        """Let a gate hold all deliveries inside the block."""
        with self.patch.context() as patch:
            patch.setattr(gates, "GATES", [lambda message, receiver: gates.Held(reason)])
            yield

    @contextmanager
    def broker_away(self) -> Iterator[None]:
        """Let the broker take nothing inside the block."""

        def refuse(queue: str | None, texts: Any, **options: Any) -> None:
            raise publisher.PublishError(range(len(texts)), OSError("away"))

        with self.patch.context() as patch:
            patch.setattr(publisher, "publish", refuse)
            patch.setattr(publisher, "publish_texts", refuse)
            yield


def succeeds(scene: Scene) -> None:
    """A receiver runs alone."""
    scene.receiver().send(None)
    scene.bus.work()


def succeeds_without_a_row(scene: Scene) -> None:
    """A receiver of a signal that is not durable runs."""
    signal = scene.signal()
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    scene.bus.work()


def commits(scene: Scene) -> None:
    """A sender's transaction commits, after a savepoint of it was rolled back."""
    signal = scene.receiver()
    with transaction.atomic():
        signal.send(None)
        with rolled_back():
            signal.send(None)
    with rolled_back():
        signal.send(None)


def shares_a_commit(scene: Scene) -> None:
    """Several deliveries run in one transaction, and one fails."""

    def receiver_that_fails_once(number, **kwargs):
        if number == 1:
            raise ValueError

    signal = scene.receiver(receiver_that_fails_once)
    scene.share_commits()
    signal.send_many(None, [{"number": number} for number in range(3)])
    scene.bus.work()


def loses_its_shared_commit(scene: Scene) -> None:
    """One of several deliveries tries to end their transaction, and runs alone after it."""
    tried: list[int] = []

    def receiver_that_commits(number, **kwargs):
        if number == 1 and not tried:
            tried.append(number)
            connection.cursor().execute("COMMIT")

    signal = scene.receiver(receiver_that_commits)
    scene.share_commits()
    signal.send_many(None, [{"number": number} for number in range(3)])
    scene.bus.work()


def fails_until_it_is_dead(scene: Scene) -> None:
    """A receiver fails twice, as often as it may."""
    signal = scene.signal(durable=True)
    fails(signal, ValueError(), "receiver", retry=Retry(max_attempts=2, base_delay=0))
    signal.send(None)
    scene.bus.work()
    scene.bus.come_again()


def fails_without_a_row(scene: Scene) -> None:
    """A delivery that had no row gets one when it fails."""
    signal = scene.signal()
    fails(signal, ValueError(), "receiver")
    signal.send(None)
    scene.bus.work()


def rejects(scene: Scene) -> None:
    """A receiver rejects its message."""
    signal = scene.signal(durable=True)
    fails(signal, Reject("never"), "receiver")
    signal.send(None)
    scene.bus.work()


def misses_a_row(scene: Scene) -> None:
    """The row of a reference is gone."""
    signal = scene.receiver()
    academy = Academy.objects.create(name="gone", slug="gone")
    signal.send(None, academy=academy)
    academy.delete()
    scene.bus.work()


def is_not_atomic(scene: Scene) -> None:
    """A receiver without a transaction is claimed before it runs."""
    scene.receiver(atomic=False).send(None)
    scene.bus.work()


def is_redelivered(scene: Scene) -> None:
    """A redelivered message is claimed before its receiver runs."""
    scene.receiver().send(None)
    scene.bus.work(redelivered=True)


def loses_its_worker(scene: Scene) -> None:
    """A message is redelivered, whose delivery a lost worker had claimed."""
    scene.receiver().send(None)
    (texts,) = scene.bus.take()
    attempts.claim(only().pk, worker="gone", lease=-1, using="default")
    deliver(texts, queue=QUEUE, redelivered=True)


def is_redelivered_in_a_batch(scene: Scene) -> None:
    """Messages of a lost worker are published again, each alone."""
    durable, other = scene.receiver(), scene.signal()
    connect(other, lambda **kwargs: None, "other")
    durable.send(None)
    other.send(None)
    texts = [text for taken in scene.bus.take() for text in taken]
    deliver(texts, queue=QUEUE, redelivered=True)


def has_no_attempt_left(scene: Scene) -> None:
    """A claimed delivery whose worker was lost in its last attempt is dead."""
    signal = scene.receiver(retry=Retry(max_attempts=1))
    signal.send(None)
    (texts,) = scene.bus.take()
    attempts.claim(only().pk, worker="gone", lease=-1, using="default")
    deliver(texts, queue=QUEUE, redelivered=True)


def is_cut_off(scene: Scene) -> None:
    """The worker shuts down while a claimed receiver runs."""

    def receiver_that_is_ended(**kwargs):
        raise SystemExit

    scene.receiver(receiver_that_is_ended, atomic=False).send(None)
    with scene.patch.context() as patch:
        patch.setattr(outcome, "was_cut_off", lambda: True)
        patch.setattr(outcome, "is_shutting_down", lambda: True)
        with pytest.raises(SystemExit):
            scene.bus.work()


def does_not_begin(scene: Scene) -> None:
    """The database fails between the claim and the receiver."""
    scene.receiver().send(None)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("away")

    with scene.patch.context() as patch:
        patch.setattr(attempts, "confirm", fail)
        with pytest.raises(DatabaseError):
            scene.bus.work(redelivered=True)


def is_unknown(scene: Scene) -> None:
    """A worker does not know the receiver, for more than a day."""
    signal = scene.receiver()
    signal.send(None)
    signal.disconnect(dispatch_uid="receiver")
    scene.bus.work()
    Delivery.objects.update(parked_at=F("parked_at") - timedelta(days=2))
    scene.bus.come_again()


def has_an_unknown_key(scene: Scene) -> None:
    """No worker and no sweeper has the key of a text; later one has."""
    signal = scene.signal()
    connect(signal, lambda **kwargs: None, "receiver")
    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["a key to come"]}):
        signal.send(None)
    scene.bus.work()
    Delivery.objects.update(due_at=Now())
    sweep()
    with override_settings(SIGNALBUS={"SIGNING_KEYS": ["a key to come"]}):
        scene.bus.come_again()
        scene.bus.come_again()


def is_refused(scene: Scene) -> None:
    """A text whose signature cannot be verified comes twice."""
    deliver(["garbage"])
    deliver(["garbage"])


def cannot_be_sent(scene: Scene) -> None:
    """A payload that cannot travel is sent robustly."""
    scene.receiver().send_robust(None, lock=object())


def cannot_be_published(scene: Scene) -> None:
    """The sweeper finds a row whose text cannot be read."""
    scene.receiver().send(None)
    StoredMessage.objects.update(text="garbage")
    Delivery.objects.update(state=State.PENDING, due_at=Now())
    sweep()


def has_no_broker(scene: Scene) -> None:
    """The broker is away when messages are sent, and when the sweeper looks."""
    signal = scene.signal()
    connect(signal, lambda **kwargs: None, "other")
    with scene.broker_away():
        scene.receiver().send(None)
        signal.send(None)
        Delivery.objects.update(due_at=Now())
        with pytest.raises(publisher.PublishError):
            sweep()
    scene.bus.come_again()


def has_no_receiver(scene: Scene) -> None:
    """No worker has a receiver of an open message."""
    scene.signal(durable=True, open=True).send(None)
    scene.bus.work()


def is_open(scene: Scene) -> None:
    """A worker finds the receiver of an open message."""
    signal = scene.signal(durable=True, open=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    scene.bus.work()
    scene.bus.come_again()


def is_sent_on(scene: Scene) -> None:
    """A worker finds a receiver of an open message that has a queue of its own."""
    signal = scene.signal(open=True)
    connect(signal, lambda **kwargs: None, "receiver", queue="email")
    signal.send(None)
    scene.bus.work()
    scene.bus.work("email")


def is_retried_by_hand(scene: Scene) -> None:
    """A person retries a dead delivery."""
    rejects(scene)
    operations.retry([only().pk])


def is_retried_in_bulk(scene: Scene) -> None:
    """An operation retries a dead delivery."""
    rejects(scene)
    with transaction.atomic():
        failed_deliveries.retry_together([only().pk])


def is_discarded_by_hand(scene: Scene) -> None:
    """A person discards a dead delivery."""
    rejects(scene)
    operations.discard([only().pk])


def is_cancelled(scene: Scene) -> None:
    """A sender cancels a message that is due later."""
    sent = scene.receiver().send_later(timedelta(hours=1), None)
    assert cancel(sent.id)


def has_an_equal_message(scene: Scene) -> None:
    """A message that waits stands for an equal one."""
    signal = scene.signal(durable=True, unique=True)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    signal.send(None)


def is_replaced(scene: Scene) -> None:
    """The next message of a burst replaces the one before."""
    signal = scene.signal(durable=True, unique=True, debounce=60)
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send(None)
    signal.send(None)


def waits_for_its_turn(scene: Scene) -> None:
    """An ordered delivery waits for the one before it, until that is discarded."""
    signal = scene.signal(durable=True, ordered_by="key")
    fails(signal, Reject("never"), "receiver")
    signal.send_many(None, [{"key": "a"}] * 2)
    scene.bus.work()
    Delivery.objects.filter(state=State.PUBLISHED).update(state=State.PENDING, due_at=Now())
    sweep()
    operations.discard([Delivery.objects.get(state=State.DEAD).pk])


def is_passed_on(scene: Scene) -> None:
    """A worker leaves the rest of an ordering key to another worker."""
    signal = scene.signal(durable=True, ordered_by="key")
    connect(signal, lambda **kwargs: None, "receiver")
    signal.send_many(None, [{"key": "a"}] * 2)
    (texts,) = scene.bus.take()
    with scene.patch.context() as patch:
        patch.setattr(sequencing, "KEY_SECONDS", -1.0)
        deliver(texts[:1], queue=QUEUE)


def is_repaired(scene: Scene) -> None:
    """An audit finds a missing delivery, and repairs it."""
    signal = scene.receiver()
    connect(signal, lambda **kwargs: None, "other")
    signal.send(None)
    Delivery.objects.get(receiver="other").delete()
    let_wait()
    since = StoredMessage.objects.get().created_at - timedelta(hours=2)
    operations.repair(operations.audit(since, operations.Evidence(frozenset({""}), time.monotonic())))


def is_requeued(scene: Scene) -> None:
    """The time of a batch is over before all of it has begun."""
    scene.receiver().send_many(None, [{}] * 2)
    with override_settings(SIGNALBUS={"BATCH_SECONDS": 0}):
        scene.bus.work()


def runs_elsewhere(scene: Scene) -> None:
    """A copy of a message that is done comes late."""
    scene.receiver().send(None)
    (texts,) = scene.bus.take()
    deliver(texts, queue=QUEUE)
    deliver(texts, queue=QUEUE)


def is_held(scene: Scene) -> None:
    """A gate holds a delivery until it is released."""
    signal = scene.receiver()
    with scene.held():
        signal.send(None)
        scene.bus.work()
    operations.release_held(["receiver"])
    sweep()
    scene.bus.work()


def is_paused(scene: Scene) -> None:
    """A pause holds a delivery until it is resumed."""
    signal = scene.receiver()
    operations.pause("receiver", "receiver", reason="", by="ana")
    with scene.held(held_by("receiver", "receiver")):
        signal.send(None)
        scene.bus.work()
    operations.resume("receiver", "receiver")
    sweep()
    scene.bus.work()


def is_held_without_a_row(scene: Scene) -> None:
    """A gate holds a delivery that has no row before."""
    signal = scene.signal()
    connect(signal, lambda **kwargs: None, "receiver")
    with scene.held():
        signal.send(None)
        scene.bus.work()


SENT = ["sent", "recorded", "published"]
RAN = ["started", "done"]

# What is reported of each delivery, by its receiver, in order; where there are several, of each of them.
EXPECTED: dict[Callable[[Scene], None], dict[str, list[list[str]]]] = {
    succeeds: {"receiver": [SENT + RAN]},
    succeeds_without_a_row: {"receiver": [["sent", "published", *RAN]]},
    commits: {"receiver": [SENT]},
    shares_a_commit: {"receiver": [SENT + RAN] * 2 + [[*SENT, "started", "failed"]]},
    loses_its_shared_commit: {"receiver": [SENT + RAN] * 2 + [[*SENT, "started", *RAN]]},
    fails_until_it_is_dead: {"receiver": [[*SENT, "started", "failed", "published", "started", "dead"]]},
    fails_without_a_row: {"receiver": [["sent", "published", "started", "recorded", "failed"]]},
    rejects: {"receiver": [[*SENT, "started", "dead"]]},
    misses_a_row: {"receiver": [[*SENT, "started", "skipped"]]},
    is_not_atomic: {"receiver": [[*SENT, "claimed", *RAN]]},
    is_redelivered: {"receiver": [[*SENT, "claimed", *RAN]]},
    loses_its_worker: {"receiver": [[*SENT, "failed"]]},
    is_redelivered_in_a_batch: {"receiver": [[*SENT, "requeued"]], "other": [["sent", "published", "recorded"]]},
    has_no_attempt_left: {"receiver": [[*SENT, "dead"]]},
    is_cut_off: {"receiver": [[*SENT, "claimed", "started", "requeued"]]},
    does_not_begin: {"receiver": [[*SENT, "claimed", "requeued"]]},
    is_unknown: {"receiver": [[*SENT, "parked", "published", "dead"]]},
    has_an_unknown_key: {
        "receiver": [["sent", "published", "recorded", "published", *RAN]],
        "": [["recorded", "parked", "parked"]],
    },
    is_refused: {"": [["recorded", "refused", "dead", "refused"]]},
    cannot_be_sent: {"receiver": [["recorded", "dead"]]},
    cannot_be_published: {"receiver": [[*SENT, "dead"]]},
    has_no_broker: {
        "receiver": [["sent", "recorded", "requeued", "requeued", "published", *RAN]],
        "other": [["sent", "recorded", "requeued", "published", *RAN]],
    },
    has_no_receiver: {"": [[*SENT, "skipped"]]},
    is_open: {"": [[*SENT, "done"]], "receiver": [["recorded", "published", *RAN]]},
    is_sent_on: {"": [["sent", "published"]], "receiver": [["published", *RAN]]},
    is_retried_by_hand: {"receiver": [[*SENT, "started", "dead", "retried"]]},
    is_retried_in_bulk: {"receiver": [[*SENT, "started", "dead", "retried"]]},
    is_discarded_by_hand: {"receiver": [[*SENT, "started", "dead", "discarded"]]},
    is_cancelled: {"receiver": [["sent", "recorded", "discarded"]]},
    has_an_equal_message: {"receiver": [[*SENT, "requeued"]]},
    is_replaced: {"receiver": [["sent", "recorded", "discarded"], ["sent", "recorded"]]},
    waits_for_its_turn: {
        "receiver": [[*SENT, "started", "dead", "discarded"], [*SENT, "requeued", "requeued"]],
    },
    is_passed_on: {"receiver": [SENT + RAN, SENT]},
    is_repaired: {"receiver": [[*SENT, "requeued"]], "other": [[*SENT, "recorded"]]},
    is_requeued: {"receiver": [SENT + RAN, [*SENT, "requeued"]]},
    runs_elsewhere: {"receiver": [SENT + RAN]},
    is_held: {"receiver": [[*SENT, "held", "requeued", "published", *RAN]]},
    is_paused: {"receiver": [[*SENT, "held", "requeued", "published", *RAN]]},
    is_held_without_a_row: {"receiver": [["sent", "published", "recorded", "held"]]},
}

# Each function of the ledger that writes a state, with a scenario in which it does.
PLACES: dict[str, Callable[[Scene], None]] = {
    "ledger_audit.repair": is_repaired,
    "deliveries.expand": is_open,
    "deliveries.unclaim": does_not_begin,
    "deliveries.record_unpublished": has_no_broker,
    "deliveries.release": is_redelivered_in_a_batch,
    "deliveries.return_due": has_no_broker,
    "settlements.Settlement.fields": fails_until_it_is_dead,
    "settlements.skip": has_no_receiver,
    "held_rows.hold_delivery": is_held,
    "held_rows.release_held": is_held,
    "releases.release_some": is_paused,
    "due._publish": fails_until_it_is_dead,
    "cancellation.discard_locked": is_cancelled,
    "cancellation.lock_waiting": has_an_equal_message,
    "failed_deliveries.discard_together": is_discarded_by_hand,
    "failed_deliveries._retried": is_retried_by_hand,
    "parked_rows._parked": is_unknown,
    "parked_rows._postpone": is_unknown,
    "parked_rows.bury": cannot_be_published,
    "parked_rows.refuse": is_refused,
    "recording._inserts": succeeds,
    "row_claims._claiming": is_not_atomic,
    "row_claims._ended": succeeds,
    "row_claims._settling": shares_a_commit,
    "row_claims.undo_take": loses_its_shared_commit,
    "ordering.postpone_followers": waits_for_its_turn,
    "ordering.wake": waits_for_its_turn,
    "unsendable.record_unsendable": cannot_be_sent,
}
# These write it in fewer statements while nobody listens; else the function beside it does, which reads the rows.
WHILE_UNHEARD = {
    "cancellation._locking_waiting": "cancellation.lock_waiting",
    "duplicates._replacing": "cancellation.discard_locked",
}


@pytest.fixture
def events(listening) -> list[Event]:
    """All events, beside listeners that raise and that make queries, which must change nothing."""
    events: list[Event] = []

    @listening()
    def listener_that_queries(event: Event) -> None:
        Delivery.objects.filter(state="nowhere").update(state="never")
        with connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")

    @listening()
    def listener_that_raises(event: Event) -> None:
        raise ValueError(event.kind)

    @listening()
    def note(event: Event) -> None:
        assert event.kind == "started" or not connection.in_atomic_block
        events.append(event)

    return events


@contextmanager
def functions_called() -> Iterator[set[str]]:
    """Note the functions of the ledger that are called inside the block, also those whose answer is known."""
    for module in [module for name, module in sys.modules.items() if name.startswith("signalbus.ledger.")]:
        for value in vars(module).values():
            getattr(value, "cache_clear", bool)()
    called: set[str] = set()

    def note(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(LEDGER)):
            called.add(f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_qualname}")

    sys.setprofile(note)
    try:
        yield called
    finally:
        sys.setprofile(None)


def reported(events: list[Event]) -> dict[str, list[list[str]]]:
    """Return the kinds of events of each delivery, by its receiver."""
    kinds: dict[Any, list[str]] = {}
    for event in events:
        kinds.setdefault((event.delivery.receiver, event.delivery.message_id), []).append(event.kind)
    found: dict[str, list[list[str]]] = {}
    for (receiver, _), those in kinds.items():
        found.setdefault(receiver, []).append(those)
    return {receiver: sorted(those) for receiver, those in found.items()}


@pytest.mark.parametrize("scenario", EXPECTED, ids=lambda scenario: scenario.__name__)
def test_events_agree_with_the_rows(bus: Bus, events: list[Event], monkeypatch, scenario):
    """Each delivery has its events, in order and once each; the last one has the state of its row."""
    if scenario in {shares_a_commit, loses_its_shared_commit} and not attempts.supports_group_commit("default"):
        pytest.skip("no group commits on this database")
    with functions_called() as called:
        scenario(Scene(bus, monkeypatch, []))

    assert {place for place, those in PLACES.items() if those is scenario} <= called
    assert reported(events) == {receiver: sorted(those) for receiver, those in EXPECTED[scenario].items()}
    last = {event.delivery.id: event.kind for event in events if event.kind in STATES}
    for row in Delivery.objects.all():
        assert row.state in STATES[last[row.pk]], row


def test_each_kind_of_event_has_a_scenario():
    """No documented kind is missing."""
    kinds = {kind for those in EXPECTED.values() for several in those.values() for each in several for kind in each}
    assert kinds == set(KINDS)


def writers() -> Iterator[str]:
    """Find the functions of the ledger that write a state, by module and name."""
    for path in sorted(LEDGER.rglob("*.py")):
        if path.stem in {"operation_log", "bulk_rows", "bulk_steps"}:  # the state of an operation, not of a delivery
            continue
        yield from _writers_in(ast.parse(path.read_text()), path.stem)


def _writers_in(node: ast.AST, name: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef):
            inner = f"{name}.{child.name}"
            if isinstance(child, ast.FunctionDef) and any(_writes_state(each) for each in ast.walk(child)):
                yield inner
            else:
                yield from _writers_in(child, inner)


def _writes_state(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        states = [keyword for keyword in node.keywords if keyword.arg == "state"]
        return bool(states) and called not in {"filter", "exclude", "Q", "dict"}
    if isinstance(node, ast.Dict):
        return any(isinstance(key, ast.Constant) and key.value == "state" for key in node.keys)
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value) is not None


def test_each_function_that_writes_a_state_has_a_scenario():
    """A new function needs its event, a scenario in EXPECTED, and an entry in PLACES."""
    assert set(writers()) == PLACES.keys() | WHILE_UNHEARD.keys()
    assert PLACES.keys() >= set(WHILE_UNHEARD.values())
