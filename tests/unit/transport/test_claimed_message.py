"""The end of a batch's message: each text ends by its own progress."""

from __future__ import annotations

import json
from base64 import b64decode
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from signalbus.transport import progress
from signalbus.transport.claimed_message import DIVIDE, ClaimedMessage
from signalbus.transport.coalescing import Merged
from signalbus.transport.progress import BEGUN, DONE, SHARED, WAITING
from tests.unit.transport.queue_items import claim, item, read


class Unacked:
    """Claims that record what is asked of them."""

    claims, index = "unacked", "unacked_index"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.items: list[tuple[str, ...]] = []  # of the divisions, as they are

    def list_of(self, claimed) -> str:
        """Return the list of a claim."""
        return str(claimed.queue)

    def unclaim(self, claimed) -> None:
        """Record it."""
        if self.error:
            raise self.error
        self.calls.append(("back", *(each.tag for each in claimed)))

    def restore(self, tags, *, leftmost) -> list[Any]:
        """Record it."""
        assert leftmost
        self.calls.append(("again", *tags))
        return []

    def run(self, script, keys, tag, remains, end, *items) -> None:
        """Record a division: the remaining texts, those for the list, and whether it is redelivered."""
        assert script is DIVIDE
        assert end == "RPUSH" or (end == "LPUSH" and not remains)
        assert keys == ("unacked", "unacked_index", "signalbus")
        self.calls.append(
            ("divide", tag, remains and seen(json.loads(remains)[0]), *(seen(json.loads(i)) for i in items))
        )
        self.items.append((remains, *items))
        if self.error:  # its answer is lost
            raise self.error


def seen(message):
    """Return what a worker will see in an item."""
    ((texts,), _, _) = json.loads(b64decode(message["body"]))
    redelivered = message["headers"].get("redelivered", False)
    assert message["properties"]["delivery_info"].get("redelivered", False) == redelivered
    return texts, redelivered


def for_some(text, indexes, count):
    """Name these recipients beside a text; a text that is none has none."""
    return None if text == "garbage" else f"{text}{''.join(map(str, indexes))}/{count}"


class Channel:
    """A channel that records how messages end."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.unacked = Unacked()
        self.active_queues = ["signalbus"]
        self.work = SimpleNamespace(free=lambda: 1, for_some=for_some)
        self.requeued_later: list[str] = []

    def basic_ack(self, tag, multiple=False) -> None:
        """Record it."""
        self.unacked.calls.append(("ack", tag))

    def basic_reject(self, tag, requeue=False) -> None:
        """Record it."""
        self.unacked.calls.append(("reject", tag, requeue))

    def requeue_later(self, tag) -> None:
        """Record it."""
        self.requeued_later.append(tag)

    def decode_body(self, body, encoding=None):
        """Return the body of a single message."""
        return body


@pytest.fixture
def channel():
    """A channel that records."""
    return Channel()


class Sheet:
    """The progress of some texts, which may begin until it is stopped."""

    def __init__(self, states, *, begins=()) -> None:
        self.states = list(states)
        self.recipients: dict[int, list[int]] = {}
        self.begins = begins  # texts that the process of the pool is about to begin

    def reported_states(self) -> bytes:
        """Return the state of each text."""
        return bytes(self.states)

    @property
    def all_states(self) -> bytes:
        """Return the state of each text and recipient."""
        return self.reported_states() + b"".join(self.parts().values())

    def parts(self) -> dict[int, bytes]:
        """Return the states of the recipients of each text that has several."""
        return {text: bytes(states) for text, states in self.recipients.items()}

    def stop(self) -> None:
        """Let no more texts begin; texts that have begun meanwhile are seen."""
        for text in self.begins:
            self.states[text] = BEGUN


@pytest.fixture
def posted():
    """The progress of three texts, in memory that the pool's process shares."""
    made = progress.post(3)
    assert made is not None
    yield made
    progress.release(made)


def deliver(channel, *members, states=()):
    """Make the message of some members, named after their tags, each with some texts."""
    batch = [read(claim(item(*texts), tag=tag)) for tag, *texts in members]
    message = ClaimedMessage(Merged(batch), channel=channel, accept={"application/json"})
    message.sheet = Sheet(states)  # type: ignore[assignment]
    return message


ABC = ("1", "a"), ("2", "b"), ("3", "c")


class TestAck:
    def test_done_texts_are_acknowledged(self, channel):
        """The batch's tag stands for all of them."""
        deliver(channel, *ABC, states=[DONE, DONE, BEGUN]).ack()
        assert channel.unacked.calls == [("ack", "sb1g:1")]

    def test_texts_that_have_not_begun_are_requeued_first(self, channel):
        """The ticket was void, and nobody has looked since."""
        deliver(channel, *ABC, states=[DONE, WAITING, WAITING]).ack()
        assert channel.unacked.calls == [("back", "2", "3"), ("ack", "sb1g:1")]

    def test_a_process_without_progress_has_done_all(self, channel):
        """It shares no memory."""
        deliver(channel, *ABC).ack()
        assert channel.unacked.calls == [("ack", "sb1g:1")]

    def test_a_text_that_could_not_be_requeued_is_not_acknowledged(self, channel):
        """It would be lost."""
        channel.unacked.error = RedisConnectionError()
        with pytest.raises(RedisConnectionError):
            deliver(channel, *ABC, states=[DONE, WAITING, WAITING]).ack()
        assert channel.unacked.calls == []
        assert channel.requeued_later == ["sb1g:1"]


class TestReject:
    def test_each_text_ends_by_its_state(self, channel):
        """Done is acknowledged, begun is redelivered and marked, waiting is requeued."""
        message = deliver(channel, *ABC, states=[DONE, BEGUN, WAITING])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("back", "3"), ("again", "2"), ("ack", "sb1g:1")]
        assert message.acknowledged

    def test_without_requeue_begun_texts_are_dropped(self, channel):
        """Celery asks for it; the other texts are not meant."""
        deliver(channel, *ABC, states=[DONE, BEGUN, WAITING]).reject()
        assert channel.unacked.calls == [("back", "3"), ("ack", "sb1g:1")]

    def test_without_progress_the_whole_message_is_redelivered(self, channel):
        """Any text may have run."""
        deliver(channel, *ABC).reject(requeue=True)
        assert channel.unacked.calls == [("reject", "sb1g:1", True)]

    def test_a_senders_batch_is_divided(self, channel):
        """It is one claim, whose texts are separate messages from then on."""
        deliver(channel, ("1", "a", "b", "c", "d"), states=[DONE, BEGUN, WAITING, WAITING]).reject(requeue=True)
        assert channel.unacked.calls == [
            ("divide", "1", (["a", "b"], False), (["d"], False), (["c"], False)),
            ("divide", "1", "", (["b"], True)),
            ("ack", "1"),
        ]


class TestAtAHardTimeLimit:
    """Celery ends the message first and then kills the process."""

    def test_a_text_that_begins_meanwhile_is_redelivered_as_begun(self, channel):
        """Unmarked it would run twice, and the first run would not be counted."""
        message = deliver(channel, *ABC)
        message.sheet = Sheet([DONE, WAITING, WAITING], begins=[1])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("back", "3"), ("again", "2"), ("ack", "sb1g:1")]

    def test_a_text_that_begins_meanwhile_is_not_requeued_by_an_acknowledgement(self, channel):
        """Celery may acknowledge a message that failed or took too long."""
        message = deliver(channel, *ABC)
        message.sheet = Sheet([DONE, WAITING, WAITING], begins=[1])
        message.ack()
        assert channel.unacked.calls == [("back", "3"), ("ack", "sb1g:1")]

    @pytest.mark.parametrize("end", [lambda message: message.reject(requeue=True), lambda message: message.ack()])
    def test_a_process_begins_no_text_after_its_message_was_redelivered(self, channel, posted, end):
        """It lives a moment longer."""
        message = deliver(channel, *ABC)
        message.sheet = posted
        told = progress.of(posted.ticket, 3)
        assert told.begin(0)
        end(message)
        told.end(0)
        assert not told.begin(1)

    def test_a_process_that_had_not_begun_begins_no_text_after_its_message_was_redelivered(self, channel, posted):
        """The whole message is redelivered."""
        message = deliver(channel, *ABC)
        message.sheet = posted
        message.reject(requeue=True)
        assert channel.unacked.calls == [("reject", "sb1g:1", True)]
        assert not progress.of(posted.ticket, 3).begin(0)


class TestRequeueing:
    def test_waiting_texts_are_requeued_while_others_run(self, channel):
        """The claims of the others stay."""
        assert deliver(channel, *ABC).requeue_free([DONE, BEGUN, WAITING])
        assert channel.unacked.calls == [("back", "3")]

    def test_texts_of_a_group_commit_are_requeued_but_not_after_an_error(self, channel):
        """A row lets each run once; one of them may have ended the process."""
        message = deliver(channel, *ABC, states=[SHARED, BEGUN, WAITING])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("back", "3"), ("again", "1", "2"), ("ack", "sb1g:1")]

        channel.unacked.calls.clear()
        message = deliver(channel, *ABC, states=[SHARED, BEGUN, WAITING])
        assert message.requeue_free([SHARED, BEGUN, WAITING])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("back", "1", "3"), ("again", "2"), ("ack", "sb1g:1")]

    def test_no_text_is_requeued_twice(self, channel):
        """The watchdog and the end of the message both requeue."""
        message = deliver(channel, ("1", "a", "b"), ("2", "c"), states=[DONE, WAITING, WAITING])
        assert message.requeue_free([BEGUN, WAITING, WAITING])
        assert message.requeue_free([BEGUN, WAITING, WAITING])
        message.ack()
        assert channel.unacked.calls == [
            ("divide", "1", (["a"], False), (["b"], False)),
            ("back", "2"),
            ("ack", "sb1g:1"),
        ]

    def test_a_claim_keeps_the_running_texts(self, channel):
        """If the worker dies, no other text of the batch runs again."""
        deliver(channel, ("1", "a", "b", "c")).requeue_free([BEGUN, WAITING, WAITING])
        assert channel.unacked.calls == [("divide", "1", (["a"], False), (["c"], False), (["b"], False))]

    def test_requeueing_is_repeated_if_the_broker_does_not_answer(self, channel):
        """Nothing was changed."""
        message = deliver(channel, *ABC)
        channel.unacked.error = RedisConnectionError()
        assert not message.requeue_free([BEGUN, WAITING, WAITING])
        channel.unacked.error = None
        assert message.requeue_free([BEGUN, WAITING, WAITING])
        assert channel.unacked.calls == [("back", "2", "3")]

    def test_the_same_command_is_repeated_if_the_answer_is_lost(self, channel):
        """It may have been done, so it must not change with the texts' progress."""
        message = deliver(channel, ("1", "a", "b", "c"), states=[DONE, WAITING, WAITING])
        channel.unacked.error = RedisConnectionError()
        assert not message.requeue_free([BEGUN, BEGUN, WAITING])
        channel.unacked.error = None
        assert message.requeue_free([DONE, BEGUN, WAITING])
        first, again = channel.unacked.items
        assert first == again
        message.ack()
        assert channel.unacked.calls[2:] == [("divide", "1", (["a"], False), (["b"], False)), ("ack", "1")]


class TestRecipients:
    """The recipients of one text, each with its own progress."""

    def deliver(self, channel, states, *members, **recipients):
        """Make a message with some texts that have several recipients."""
        message = deliver(channel, *members, states=states)
        message.sheet.recipients = {message.texts.index(text): each for text, each in recipients.items()}
        return message

    def test_waiting_recipients_are_requeued_each_alone(self, channel):
        """The claim keeps the straggler; done recipients do not run again if the worker dies."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[DONE, BEGUN, WAITING, WAITING])
        assert message.requeue_free([BEGUN])
        assert channel.unacked.calls == [("divide", "1", (["a1/4"], False), (["a3/4"], False), (["a2/4"], False))]

        message.sheet.states, message.sheet.recipients = [DONE], {0: [DONE, DONE, WAITING, WAITING]}
        message.ack()
        assert channel.unacked.calls[1:] == [("ack", "1")]

    def test_refused_recipients_are_requeued_before_the_end(self, channel):
        """Nobody has looked between the void ticket and the end."""
        self.deliver(channel, [DONE], ("1", "a"), a=[DONE, WAITING]).ack()
        assert channel.unacked.calls == [("divide", "1", "", (["a1/2"], False)), ("ack", "1")]

    def test_recipients_of_a_group_commit_are_requeued_beside_the_running_one(self, channel):
        """Their rows let each run once."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[SHARED, BEGUN, DONE])
        assert message.requeue_free([BEGUN])
        assert channel.unacked.calls == [("divide", "1", (["a1/3"], False), (["a0/3"], False))]

    def test_begun_recipients_are_redelivered_without_the_requeued_ones(self, channel):
        """Their process was lost."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[BEGUN, WAITING])
        message.requeue_free([BEGUN])
        message.reject(requeue=True)
        assert channel.unacked.calls == [
            ("divide", "1", (["a0/2"], False), (["a1/2"], False)),
            ("again", "1"),
            ("ack", "1"),
        ]

    @pytest.mark.parametrize(
        ("recipients", "calls"),
        [
            ([DONE, DONE, BEGUN], [("divide", "1", "", (["a2/3"], True))]),
            ([DONE, BEGUN, WAITING], [("divide", "1", (["a1/3"], False), (["a2/3"], False)), ("again", "1")]),
            ([DONE, DONE, DONE], [("divide", "1", "")]),
            ([BEGUN, SHARED], [("again", "1")]),
        ],
    )
    def test_a_lost_child_runs_no_recipient_again_that_was_done(self, channel, recipients, calls):
        """Also where no recipient waited, so that the claim was not divided."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=recipients)
        message.reject(requeue=True)
        assert channel.unacked.calls == [*calls, ("ack", "1")]

    def test_a_lost_child_runs_no_recipient_of_a_batch_again_that_was_done(self, channel):
        """Each text of a batch is redelivered for its own unfinished recipients."""
        message = self.deliver(channel, [DONE, BEGUN], ("1", "a", "b"), a=[DONE, DONE], b=[DONE, BEGUN])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("divide", "1", "", (["b1/2"], True)), ("ack", "1")]

    def test_recipients_noted_at_a_time_limit_are_redelivered(self, channel):
        """The child notes its recipients after the others were requeued, and is killed before it begins one."""
        message = self.deliver(channel, [BEGUN], ("1", "a"))
        message._requeue_texts([BEGUN])
        message.sheet.recipients = {0: [DONE, WAITING, WAITING]}
        message._requeue_begun([BEGUN])
        assert channel.unacked.calls == [("divide", "1", "", (["a12/3"], True))]

    def test_recipients_are_requeued_with_waiting_texts(self, channel):
        """This happens in one step, in their order."""
        message = self.deliver(channel, [DONE, BEGUN, WAITING], ("1", "a", "b", "c"), b=[BEGUN, WAITING])
        assert message.requeue_free([DONE, BEGUN, WAITING])
        assert channel.unacked.calls == [
            ("divide", "1", (["a", "b0/2"], False), (["b1/2"], False), (["c"], False)),
        ]

    def test_a_requeued_text_leaves_out_requeued_recipients(self, channel):
        """Its other recipients were put off, for example."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[BEGUN, WAITING])
        message.requeue_free([BEGUN])
        assert message.requeue_free([WAITING])
        assert channel.unacked.calls[1:] == [("divide", "1", "", (["a0/2"], False))]

    def test_an_invalid_text_is_not_changed(self, channel):
        """Its worker refuses it."""
        message = self.deliver(channel, [BEGUN], ("1", "garbage"), garbage=[BEGUN, WAITING])
        assert message.requeue_free([BEGUN])
        assert channel.unacked.calls == []

    def test_the_same_division_is_repeated_if_the_answer_is_lost(self, channel):
        """It may have been done."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[BEGUN, WAITING])
        channel.unacked.error = RedisConnectionError()
        assert not message.requeue_free([BEGUN])
        channel.unacked.error = None
        message.sheet.recipients = {0: [DONE, WAITING]}
        assert message.requeue_free([BEGUN])
        first, again = channel.unacked.items
        assert first == again


class TestWaiting:
    def test_texts_wait_for_a_free_process(self, channel):
        """It would begin them."""
        message = deliver(channel, *ABC)
        assert message.is_waited_for()
        channel.work.free = lambda: 0
        assert not message.is_waited_for()
        channel.work.free = lambda: None  # nobody knows
        assert not message.is_waited_for()

    def test_a_worker_that_stops_consuming_has_no_free_process(self, channel):
        """It left the queue, or stops: its pool may be gone."""
        channel.active_queues = ["other"]
        channel.work.free = Mock(side_effect=AttributeError)
        assert not deliver(channel, *ABC).is_waited_for()


def test_each_item_of_a_divided_batch_is_a_message_of_its_own(channel, monkeypatch):
    """Each has its own tag and id, so the end of one does not end another."""
    items: list[str] = []
    monkeypatch.setattr(
        channel.unacked, "run", lambda script, keys, tag, remains, end, *made: items.extend([remains, *made])
    )
    made = item("a", "b")
    message = ClaimedMessage(Merged([read(claim(made))]), channel=channel, accept={"application/json"})
    message.requeue_free([BEGUN, WAITING])
    remains, rest = json.loads(items[0])[0], json.loads(items[1])
    seen = [(each["headers"]["id"], each["properties"]["delivery_tag"]) for each in (made, remains, rest)]
    assert len(set(seen)) == 3
    assert read(claim(rest)).texts == ("b",)
