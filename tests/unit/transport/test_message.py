"""How a group's message ends: each text as far as it has come."""

from __future__ import annotations

import json
from base64 import b64decode
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from signalbus.transport import progress
from signalbus.transport.claimed_message import DIVIDE, Message
from signalbus.transport.coalescing import Merged
from signalbus.transport.progress import BEGUN, DONE, SHARED, WAITING
from tests.unit.transport.parcels import claim, item, read


class Unacked:
    """What is claimed; notes what is asked of it."""

    claims, index = "unacked", "unacked_index"

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.items: list[tuple[str, ...]] = []  # of the divisions, as they are

    def list_of(self, claimed) -> str:
        """Where a claim came from."""
        return str(claimed.queue)

    def give_back(self, claimed) -> None:
        """Note it."""
        if self.error:
            raise self.error
        self.calls.append(("back", *(each.tag for each in claimed)))

    def restore(self, tags, *, leftmost) -> list[Any]:
        """Note it."""
        assert leftmost
        self.calls.append(("again", *tags))
        return []

    def run(self, script, keys, tag, remains, end, *items) -> None:
        """Note a division: as what remains and what goes to the list: texts, and whether it is redelivered."""
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
    """What a worker will see in an item."""
    ((texts,), _, _) = json.loads(b64decode(message["body"]))
    redelivered = message["headers"].get("redelivered", False)
    assert message["properties"]["delivery_info"].get("redelivered", False) == redelivered
    return texts, redelivered


def for_some(text, places, count):
    """Name those recipients beside a text; one that is none has none."""
    return None if text == "garbage" else f"{text}{''.join(map(str, places))}/{count}"


class Channel:
    """A channel that notes how messages end."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.unacked = Unacked()
        self.active_queues = ["signalbus"]
        self.work = SimpleNamespace(free=lambda: 1, for_some=for_some)
        self.requeued_later: list[str] = []

    def basic_ack(self, tag, multiple=False) -> None:
        """Note it."""
        self.unacked.calls.append(("ack", tag))

    def basic_reject(self, tag, requeue=False) -> None:
        """Note it."""
        self.unacked.calls.append(("reject", tag, requeue))

    def requeue_later(self, tag) -> None:
        """Note it."""
        self.requeued_later.append(tag)

    def decode_body(self, body, encoding=None):
        """A single message's."""
        return body


@pytest.fixture
def channel():
    """One that notes what happens."""
    return Channel()


class Sheet:
    """The progress of some texts; a text may begin until it is stopped."""

    def __init__(self, states, *, begins=()) -> None:
        self.states = list(states)
        self.recipients: dict[int, list[int]] = {}
        self.begins = begins  # texts that the process of the pool is about to begin

    def told(self) -> bytes:
        """Return the state of each text."""
        return bytes(self.states)

    @property
    def all_states(self) -> bytes:
        """The same, with those of recipients."""
        return self.told() + b"".join(self.parts().values())

    def parts(self) -> dict[int, bytes]:
        """Return the states of the recipients of each text that has several."""
        return {text: bytes(states) for text, states in self.recipients.items()}

    def stop(self) -> None:
        """Let nothing more begin; what has begun meanwhile is seen."""
        for text in self.begins:
            self.states[text] = BEGUN


@pytest.fixture
def posted():
    """The progress of three texts, in the memory that the process of the pool shares."""
    made = progress.post(3)
    assert made is not None
    yield made
    progress.put_away(made)


def deliver(channel, *members, states=()):
    """Make the message of some members, named after their tags, each with some texts."""
    parcels = [read(claim(item(*texts), tag=tag)) for tag, *texts in members]
    message = Message(Merged(parcels), channel=channel, accept={"application/json"})
    message.sheet = Sheet(states)  # type: ignore[assignment]
    return message


ABC = ("1", "a"), ("2", "b"), ("3", "c")


class TestAck:
    def test_what_is_done_is_acknowledged(self, channel):
        """By the group's tag, which stands for all of them."""
        deliver(channel, *ABC, states=[DONE, DONE, BEGUN]).ack()
        assert channel.unacked.calls == [("ack", "sb1g:1")]

    def test_what_has_not_begun_is_given_back_first(self, channel):
        """It was taken back, and nobody has looked since."""
        deliver(channel, *ABC, states=[DONE, WAITING, WAITING]).ack()
        assert channel.unacked.calls == [("back", "2", "3"), ("ack", "sb1g:1")]

    def test_who_tells_nothing_has_done_it(self, channel):
        """A process that shares no memory."""
        deliver(channel, *ABC).ack()
        assert channel.unacked.calls == [("ack", "sb1g:1")]

    def test_nothing_is_acknowledged_that_could_not_be_given_back(self, channel):
        """It would be lost."""
        channel.unacked.error = RedisConnectionError()
        with pytest.raises(RedisConnectionError):
            deliver(channel, *ABC, states=[DONE, WAITING, WAITING]).ack()
        assert channel.unacked.calls == []
        assert channel.requeued_later == ["sb1g:1"]


class TestReject:
    def test_each_goes_its_way(self, channel):
        """Done is done; what was begun comes again, marked; what waited has nothing to do with it."""
        message = deliver(channel, *ABC, states=[DONE, BEGUN, WAITING])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("back", "3"), ("again", "2"), ("ack", "sb1g:1")]
        assert message.acknowledged

    def test_without_requeue_what_was_begun_is_dropped(self, channel):
        """As Celery wants it; the others were not meant."""
        deliver(channel, *ABC, states=[DONE, BEGUN, WAITING]).reject()
        assert channel.unacked.calls == [("back", "3"), ("ack", "sb1g:1")]

    def test_who_tells_nothing_comes_again_as_a_whole(self, channel):
        """Any of them may have run."""
        deliver(channel, *ABC).reject(requeue=True)
        assert channel.unacked.calls == [("reject", "sb1g:1", True)]

    def test_a_batch_is_divided(self, channel):
        """It is one claim, of which each text goes its own way, and alone from then on."""
        deliver(channel, ("1", "a", "b", "c", "d"), states=[DONE, BEGUN, WAITING, WAITING]).reject(requeue=True)
        assert channel.unacked.calls == [
            ("divide", "1", (["a", "b"], False), (["d"], False), (["c"], False)),
            ("divide", "1", "", (["b"], True)),
            ("ack", "1"),
        ]


class TestAtAHardTimeLimit:
    """Celery ends the message first and kills the process then."""

    def test_a_text_that_begins_meanwhile_is_given_out_again_as_begun(self, channel):
        """Unmarked it would run twice, and nobody would count the first run."""
        message = deliver(channel, *ABC)
        message.sheet = Sheet([DONE, WAITING, WAITING], begins=[1])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("back", "3"), ("again", "2"), ("ack", "sb1g:1")]

    def test_a_text_that_begins_meanwhile_is_not_given_back_by_an_acknowledgement(self, channel):
        """As where Celery acknowledges what has failed or overrun its time."""
        message = deliver(channel, *ABC)
        message.sheet = Sheet([DONE, WAITING, WAITING], begins=[1])
        message.ack()
        assert channel.unacked.calls == [("back", "3"), ("ack", "sb1g:1")]

    @pytest.mark.parametrize("end", [lambda message: message.reject(requeue=True), lambda message: message.ack()])
    def test_the_process_begins_nothing_after_it(self, channel, posted, end):
        """It lives for a moment longer."""
        message = deliver(channel, *ABC)
        message.sheet = posted
        told = progress.of(posted.ticket, 3)
        assert told.begin(0)
        end(message)
        told.end(0)
        assert not told.begin(1)

    def test_the_process_begins_nothing_after_it_though_it_has_not_begun_before(self, channel, posted):
        """The whole message comes again."""
        message = deliver(channel, *ABC)
        message.sheet = posted
        message.reject(requeue=True)
        assert channel.unacked.calls == [("reject", "sb1g:1", True)]
        assert not progress.of(posted.ticket, 3).begin(0)


class TestGivingBack:
    def test_what_waits_goes_back_while_the_rest_is_worked_on(self, channel):
        """The claims of the others stay."""
        assert deliver(channel, *ABC).give_back([DONE, BEGUN, WAITING])
        assert channel.unacked.calls == [("back", "3")]

    def test_who_shares_a_transaction_goes_back_as_well_but_not_because_of_an_error(self, channel):
        """Its row lets it run once; and it may be what ended the process."""
        message = deliver(channel, *ABC, states=[SHARED, BEGUN, WAITING])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("back", "3"), ("again", "1", "2"), ("ack", "sb1g:1")]

        channel.unacked.calls.clear()
        message = deliver(channel, *ABC, states=[SHARED, BEGUN, WAITING])
        assert message.give_back([SHARED, BEGUN, WAITING])
        message.reject(requeue=True)
        assert channel.unacked.calls == [("back", "1", "3"), ("again", "2"), ("ack", "sb1g:1")]

    def test_nothing_is_given_back_twice(self, channel):
        """Not by the lookout, and not at the end."""
        message = deliver(channel, ("1", "a", "b"), ("2", "c"), states=[DONE, WAITING, WAITING])
        assert message.give_back([BEGUN, WAITING, WAITING])
        assert message.give_back([BEGUN, WAITING, WAITING])
        message.ack()
        assert channel.unacked.calls == [
            ("divide", "1", (["a"], False), (["b"], False)),
            ("back", "2"),
            ("ack", "sb1g:1"),
        ]

    def test_a_claim_keeps_what_is_worked_on(self, channel):
        """If the worker dies, nothing else of the batch runs again."""
        deliver(channel, ("1", "a", "b", "c")).give_back([BEGUN, WAITING, WAITING])
        assert channel.unacked.calls == [("divide", "1", (["a"], False), (["c"], False), (["b"], False))]

    def test_the_broker_does_not_answer(self, channel):
        """So it is tried again."""
        message = deliver(channel, *ABC)
        channel.unacked.error = RedisConnectionError()
        assert not message.give_back([BEGUN, WAITING, WAITING])
        channel.unacked.error = None
        assert message.give_back([BEGUN, WAITING, WAITING])
        assert channel.unacked.calls == [("back", "2", "3")]

    def test_the_answer_is_lost(self, channel):
        """It may have been done: the very same is said again, whatever has happened to the texts since."""
        message = deliver(channel, ("1", "a", "b", "c"), states=[DONE, WAITING, WAITING])
        channel.unacked.error = RedisConnectionError()
        assert not message.give_back([BEGUN, BEGUN, WAITING])
        channel.unacked.error = None
        assert message.give_back([DONE, BEGUN, WAITING])
        first, again = channel.unacked.items
        assert first == again
        message.ack()
        assert channel.unacked.calls[2:] == [("divide", "1", (["a"], False), (["b"], False)), ("ack", "1")]


class TestRecipients:
    """Those of one text, as far as each is."""

    def deliver(self, channel, states, *members, **recipients):
        """Make a message, of whose texts some have several recipients."""
        message = deliver(channel, *members, states=states)
        message.sheet.recipients = {message.texts.index(text): each for text, each in recipients.items()}
        return message

    def test_those_that_wait_go_back_each_alone(self, channel):
        """The claim keeps the one that hangs: what is done does not run again if the worker dies."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[DONE, BEGUN, WAITING, WAITING])
        assert message.give_back([BEGUN])
        assert channel.unacked.calls == [("divide", "1", (["a1/4"], False), (["a3/4"], False), (["a2/4"], False))]

        message.sheet.states, message.sheet.recipients = [DONE], {0: [DONE, DONE, WAITING, WAITING]}
        message.ack()
        assert channel.unacked.calls[1:] == [("ack", "1")]

    def test_those_that_were_refused_go_back_before_the_end(self, channel):
        """Nobody has looked between the void ticket and the end."""
        self.deliver(channel, [DONE], ("1", "a"), a=[DONE, WAITING]).ack()
        assert channel.unacked.calls == [("divide", "1", "", (["a1/2"], False)), ("ack", "1")]

    def test_those_of_one_commit_go_back_beside_the_one_whose_turn_it_is(self, channel):
        """Their rows let them run once."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[SHARED, BEGUN, DONE])
        assert message.give_back([BEGUN])
        assert channel.unacked.calls == [("divide", "1", (["a1/3"], False), (["a0/3"], False))]

    def test_what_was_begun_is_given_out_again_without_those_that_went_back(self, channel):
        """Its process is lost."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[BEGUN, WAITING])
        message.give_back([BEGUN])
        message.reject(requeue=True)
        assert channel.unacked.calls == [
            ("divide", "1", (["a0/2"], False), (["a1/2"], False)),
            ("again", "1"),
            ("ack", "1"),
        ]

    def test_in_a_batch_they_go_with_the_texts_that_wait(self, channel):
        """In one step, in their order."""
        message = self.deliver(channel, [DONE, BEGUN, WAITING], ("1", "a", "b", "c"), b=[BEGUN, WAITING])
        assert message.give_back([DONE, BEGUN, WAITING])
        assert channel.unacked.calls == [
            ("divide", "1", (["a", "b0/2"], False), (["b1/2"], False), (["c"], False)),
        ]

    def test_a_text_that_goes_back_as_a_whole_goes_without_those_that_went_before(self, channel):
        """As where its others were put off."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[BEGUN, WAITING])
        message.give_back([BEGUN])
        assert message.give_back([WAITING])
        assert channel.unacked.calls[1:] == [("divide", "1", "", (["a0/2"], False))]

    def test_a_text_that_is_none_stays_as_it_is(self, channel):
        """Its worker refuses it."""
        message = self.deliver(channel, [BEGUN], ("1", "garbage"), garbage=[BEGUN, WAITING])
        assert message.give_back([BEGUN])
        assert channel.unacked.calls == []

    def test_the_answer_is_lost(self, channel):
        """The very same is said again."""
        message = self.deliver(channel, [BEGUN], ("1", "a"), a=[BEGUN, WAITING])
        channel.unacked.error = RedisConnectionError()
        assert not message.give_back([BEGUN])
        channel.unacked.error = None
        message.sheet.recipients = {0: [DONE, WAITING]}
        assert message.give_back([BEGUN])
        first, again = channel.unacked.items
        assert first == again


class TestWaiting:
    def test_others_are_waited_for_where_a_place_is_free(self, channel):
        """There they would begin."""
        message = deliver(channel, *ABC)
        assert message.is_waited_for()
        channel.work.free = lambda: 0
        assert not message.is_waited_for()
        channel.work.free = lambda: None  # nobody knows
        assert not message.is_waited_for()

    def test_not_by_a_worker_that_takes_no_more(self, channel):
        """It was told to leave the queue, or stops: its pool may be gone."""
        channel.active_queues = ["other"]
        channel.work.free = Mock(side_effect=AttributeError)
        assert not deliver(channel, *ABC).is_waited_for()


def test_each_item_of_a_divided_batch_is_a_message_of_its_own(channel, monkeypatch):
    """With one tag, or one id, the end of one would be that of the other."""
    items: list[str] = []
    monkeypatch.setattr(
        channel.unacked, "run", lambda script, keys, tag, remains, end, *made: items.extend([remains, *made])
    )
    made = item("a", "b")
    message = Message(Merged([read(claim(made))]), channel=channel, accept={"application/json"})
    message.give_back([BEGUN, WAITING])
    remains, rest = json.loads(items[0])[0], json.loads(items[1])
    seen = [(each["headers"]["id"], each["properties"]["delivery_tag"]) for each in (made, remains, rest)]
    assert len(set(seen)) == 3
    assert read(claim(rest)).texts == ("b",)
