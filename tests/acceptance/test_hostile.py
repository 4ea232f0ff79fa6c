"""Promise 6: an attacker who can write to the broker, but does not have the key, makes no receiver run.

The items are pushed straight into the queue's Redis list, as a hostile writer would.
"""

from __future__ import annotations

import base64
import json
import random
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import redis

from signalbus import celery, conf
from signalbus.broker import task_signing
from signalbus.models import Delivery, State
from signalbus.transport.unacked import QUARANTINE_LIST
from signalbus.wire.signing import Signer
from tasks.marketing.models import FormEntry
from tests.integration.test_quarantine import ITEMS
from tests.misbehaving.signals import arriving
from tests.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from signalbus.embedded import EmbeddedValkey
    from tests.servers import Worker

TAG = "tasks.marketing.tasks.add_cohort_slug_as_acp_tag"
TESTS_SETTINGS = {"DJANGO_SETTINGS_MODULE": "tests.settings"}


@pytest.fixture
def queue(valkey: EmbeddedValkey, broker_url: str) -> Iterator[redis.Redis]:
    """The broker, as an attacker can use it."""
    with redis.Redis.from_url(valkey.redis_url) as client:
        yield client


def good_text(queue: redis.Redis) -> tuple[str, dict[str, Any]]:
    """Send a real signal while no worker runs, and return its text and its queue item."""
    arriving.send(sender=None, label="stolen")
    item: Any = queue.lpop("signalbus")
    envelope = json.loads(item)
    arguments = json.loads(base64.b64decode(envelope["body"]))[0]
    return arguments[0][0], envelope


def with_arguments(envelope: dict[str, Any], arguments: list[Any], keywords: dict[str, Any] | None = None) -> str:
    """Return a Celery message like the given one, with other arguments."""
    body = json.dumps([arguments, keywords or {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    forged = json.loads(json.dumps(envelope))
    forged["body"] = base64.b64encode(body.encode()).decode()
    forged["headers"]["id"] = forged["properties"]["correlation_id"] = str(uuid.uuid4())
    forged["properties"]["delivery_tag"] = str(uuid.uuid4())
    return json.dumps(forged)


def edited(item: str, **headers: Any) -> str:
    """Return an item with other headers; None removes one."""
    envelope = json.loads(item)
    merged = envelope["headers"] | headers
    envelope["headers"] = {name: value for name, value in merged.items() if value is not None}
    return json.dumps(envelope)


def with_body(item: str, body: bytes) -> str:
    """Return an item with another body."""
    return json.dumps(json.loads(item) | {"body": base64.b64encode(body).decode()})


def nested(levels: int) -> Any:
    """Nest lists."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def sealed_item(queue: redis.Redis) -> str:
    """Publish a task of the checkout through its own app, and return the queue item."""
    celery.get_app().send_task(TAG, args=[1, "sealed"])
    item: Any = queue.lpop("signalbus")
    return str(item.decode())


def items_for_other_tasks(text: str, envelope: dict[str, Any], sealed: str) -> dict[str, str]:
    """Make items for other tasks of our own app's worker, none of which a key holder wrote."""
    signal = with_arguments(envelope, [[text]])
    tag = with_arguments(envelope, [1, "unsigned"])
    deep = with_arguments(envelope, [nested(600)])
    triple: Any = base64.b64decode(json.loads(tag)["body"])
    other = task_signing.sign_task({"task": "celery.backend_cleanup", "id": "x"}, "", [[], {}, {}]).encode()
    mac = json.loads(sealed)["body"]
    return {
        "a built-in": edited(with_arguments(envelope, []), task="celery.backend_cleanup"),
        "a built-in, nested": edited(deep, task="celery.backend_cleanup"),
        "a shared task": edited(tag, task=TAG),
        "a shared task, nested": edited(deep, task=TAG),
        "a shared task, nested headers": edited(tag, task=TAG, stamps=nested(600), mine=nested(600)),
        "a shared task without an id": edited(tag, task=TAG, id=None),
        "a signal's text as a seal": with_body(edited(signal, task=TAG), text.encode()),
        "another task's seal": with_body(edited(sealed, task=TAG), other),
        "a broken seal": with_body(sealed, base64.b64decode(mac).replace(b"sealed", b"broken")),
        "a seal cut short": with_body(sealed, base64.b64decode(mac)[:-3]),
        "a seal that claims to be JSON": json.dumps(
            json.loads(edited(sealed, task="tasks.other")) | {"content-type": "application/json"}
        ),
        "a list for a task": edited(tag, task=["x"]),
        "no task": edited(tag, task=None),
        "the first protocol": with_body(
            edited(tag, task=None), json.dumps({"task": TAG, "id": "x", "args": [1, "first"], "kwargs": {}}).encode()
        ),
        "the hybrid protocol": with_body(
            edited(tag, task=TAG), json.dumps({"task": TAG, "id": "x", "args": [1, "hybrid"], "kwargs": {}}).encode()
        ),
        "an unsealed triple": with_body(edited(sealed), triple),
        "callbacks": with_body(
            edited(signal),
            json.dumps(
                [
                    [[text]],
                    {},
                    {
                        "callbacks": [{"task": TAG, "args": [1, "callback"]}],
                        "errbacks": [{"task": TAG, "args": [1, "errback"]}],
                    },
                ]
            ).encode(),
        ),
    }


def hostile_items(text: str, envelope: dict[str, Any]) -> dict[str, str]:
    """Make one item of each kind."""
    key, mac, body = text.split(".", 2)
    stranger = Signer(["a key that nobody here holds"], conf.get().MAX_BYTES)
    deep: Any = "x"
    for _ in range(500):
        deep = [deep]
    other_task = with_arguments(envelope, [[text]])
    unknown = json.loads(other_task)
    unknown["headers"]["task"] = "os.system"
    nameless = json.loads(other_task)
    del nameless["headers"]["id"]
    headers = json.loads(other_task)
    headers["headers"] |= {"stamps": deep, "timelimit": "soon", "expires": None}
    chained = json.loads(base64.b64decode(json.loads(other_task)["body"]))
    chained[0] = [["prose"]]
    chained[2]["callbacks"] = deep
    return {
        "no text": with_arguments(envelope, [[""]]),
        "prose": with_arguments(envelope, [["rm -rf /"]]),
        "a number for a list": with_arguments(envelope, [7]),
        "null": with_arguments(envelope, [None]),
        "a dict for a list": with_arguments(envelope, [{"texts": [text]}]),
        "numbers for texts": with_arguments(envelope, [[1, 2.5, None, True]]),
        "lists for texts": with_arguments(envelope, [[[text]]]),
        "five hundred lists": with_arguments(envelope, [deep]),
        "no arguments": with_arguments(envelope, []),
        "unexpected arguments": with_arguments(envelope, [[text], "more"], {"queue": "other"}),
        "kombu's own tags": with_arguments(envelope, [[{"__type__": "uuid", "__value__": {"hex": "zz"}}]]),
        "a mac of zeros": with_arguments(envelope, [[f"{key}.{'A' * len(mac)}.{body}"]]),
        "another body under its mac": with_arguments(envelope, [[f"{key}.{mac}.{body.replace('stolen', 'forged')}"]]),
        "a truncated text": with_arguments(envelope, [[text[:-10]]]),
        "a mutated text": with_arguments(envelope, [[mutated(text)]]),
        "a stranger's key": with_arguments(envelope, [[stranger.sign(body)]]),
        "our key's name on a stranger's mac": with_arguments(
            envelope, [[f"{key}.{stranger.sign(body).split('.')[1]}.{body}"]]
        ),
        "nul and surrogates": with_arguments(envelope, [["\x00\ud800.\x00.\ud800"]]),
        "too large": with_arguments(envelope, [[f"{key}.{mac}.{'1' * 2_000_000}"]]),
        "log lines": with_arguments(envelope, [["x\n[2026-01-01] root logged in\x1b[2J"]]),
        "an unknown task": json.dumps(unknown),
        "no id": json.dumps(nameless),
        "nested headers": json.dumps({**headers, "body": json.loads(with_arguments(envelope, [["prose"]]))["body"]}),
        "nested callbacks": json.dumps(
            {**json.loads(other_task), "body": base64.b64encode(json.dumps(chained).encode()).decode()}
        ),
        "a body that is no triple": json.dumps(
            {**json.loads(other_task), "body": base64.b64encode(b'[["x"]]').decode()}
        ),
        "a body that is a number": with_body(other_task, b"7"),
        "a body that is nothing": with_body(other_task, b"null"),
        "a body that is no JSON": with_body(other_task, b"{"),
        "a body nested beyond reading": with_body(other_task, b"[" * 100_000),
        "another encoding": json.dumps({**json.loads(other_task), "content-encoding": 7}),
        "another serializer": json.dumps({**json.loads(other_task), "content-type": "application/x-python-serialize"}),
        "a body that is a text": json.dumps({**json.loads(other_task), "body": base64.b64encode(b'"abc"').decode()}),
    }


def mutated(text: str) -> str:
    """Change one character of a text."""
    at = random.Random(4).randrange(60, len(text))
    return text[:at] + ("x" if text[at] != "x" else "y") + text[at + 1 :]


def test_promise_6_bad_input_forged_and_garbage_items_run_nothing_and_end_no_worker(
    queue: redis.Redis, start_worker: Callable[..., Worker]
):
    """Of over 13 kinds of hostile items none runs a receiver; the worker lives, and the next valid message is quick."""
    text, envelope = good_text(queue)
    items = hostile_items(text, envelope)
    assert len(items) >= 13
    worker = start_worker(environment=TESTS_SETTINGS)
    main, children = worker.pid, worker.children()

    for item in items.values():
        queue.lpush("signalbus", item)
    wait_until(lambda: not queue.llen("signalbus") and not queue.hlen("unacked"), what="an empty queue")
    started = time.monotonic()
    arriving.send(sender=None, label="good")
    wait_until(FormEntry.objects.filter(kind="arrived", subject="good").exists, what="the next good message")
    took = time.monotonic() - started

    assert list(FormEntry.objects.values_list("subject", flat=True)) == ["good"]
    assert took < 1
    assert (worker.pid, worker.children()) == (main, children)
    refused = Delivery.objects.filter(state=State.DEAD, message__sealed=True)
    assert refused.count() >= 10
    parked = Delivery.objects.get(state=State.PARKED)
    assert parked.message.sealed


def test_promise_6_bad_input_nothing_unsigned_runs_in_our_own_worker(
    queue: redis.Redis, start_worker: Callable[..., Worker]
):
    """No shared task and no task of Celery's own runs; each is counted, no process ends, and a sealed task runs."""
    text, envelope = good_text(queue)
    sealed = sealed_item(queue)
    items = items_for_other_tasks(text, envelope, sealed)
    worker = start_worker(environment=TESTS_SETTINGS)
    main, children = worker.pid, worker.children()

    for item in items.values():
        queue.lpush("signalbus", item)
    wait_until(lambda: not queue.llen("signalbus") and not queue.hlen("unacked"), what="an empty queue")
    queue.lpush("signalbus", sealed)
    wait_until(FormEntry.objects.filter(kind="tag").exists, what="the sealed task")

    assert list(FormEntry.objects.filter(kind="tag").values_list("subject", flat=True)) == ["1:sealed"]
    assert (worker.pid, worker.children()) == (main, children)
    refused = Delivery.objects.filter(state=State.DEAD, message__sealed=True)
    # All but one, whose text is good, and whose callbacks are left out.
    assert sum(refused.values_list("attempts", flat=True)) == len(items) - 1


def test_promise_6_a_signed_text_can_be_replayed_but_not_altered(
    queue: redis.Redis, start_worker: Callable[..., Worker]
):
    """A replayed text is delivered again, with the same payload, to the same recipients."""
    text, envelope = good_text(queue)
    start_worker(environment=TESTS_SETTINGS)

    queue.lpush("signalbus", with_arguments(envelope, [[text]]))

    trace = wait_until(FormEntry.objects.filter(kind="arrived").first, what="the replayed message")
    assert trace.subject == "stolen"


@pytest.mark.parametrize("database", ["sqlite"])
def test_items_that_are_no_celery_messages_are_quarantined(queue: redis.Redis, start_worker: Callable[..., Worker]):
    """Such items are in the queue and under the keys of claims; the next valid message runs within a second."""
    worker = start_worker(environment=TESTS_SETTINGS)
    main = worker.pid
    for number, item in enumerate(ITEMS.values()):
        queue.hset("unacked", f"sb1:nobody:{number}", item)
        queue.zadd("unacked_index", {f"sb1:nobody:{number}": number})
    queue.zadd("unacked_owners", {"nobody": 5})
    for item in ITEMS.values():
        queue.lpush("signalbus", item)

    arriving.send(sender=None, label="good")
    sent = time.monotonic()
    wait_until(FormEntry.objects.filter(kind="arrived", subject="good").exists, what="the good one")
    assert time.monotonic() - sent < 1
    wait_until(lambda: not queue.hlen("unacked"), what="the claims to be quarantined")
    assert queue.llen(QUARANTINE_LIST) >= len(ITEMS)
    assert worker.pid == main
    assert QUARANTINE_LIST in worker.log
