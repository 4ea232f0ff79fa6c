"""The fast path puts the same items on a queue as Celery, and reports each error."""

from __future__ import annotations

import json
import os
import re
import signal as os_signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis
from celery import Celery, _state
from celery.signals import before_task_publish
from celery.utils.nodenames import anon_nodename
from django.test import override_settings
from kombu import Exchange, Producer, Queue
from kombu.exceptions import OperationalError
from kombu.transport.redis import Channel

from signalbus import celery, tasks
from signalbus.broker import celery_producers, envelope, fast_path, publisher
from signalbus.embedded import EmbeddedValkey
from tests.other_servers.daemon import free_port
from tests.other_servers.tls import OPENSSL, behind_tls, make_certificate
from tests.servers import CHECKOUT, wait_until

from .bus import eager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXTS = ['a "quoted" text\nof two lines', "back\\slash, \x00 and é", "x" * 3000]
IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
SHORT = {"PUBLISH_TIMEOUT": 0.4, "CONNECT_TIMEOUT": 0.4}


@pytest.fixture
def client(valkey: EmbeddedValkey) -> Iterator[Any]:
    """A client of the broker, which is empty."""
    if valkey.pid is None:
        valkey.start()
    with redis.Redis.from_url(valkey.redis_url) as client:
        client.flushall()
        yield client


@pytest.fixture
def new_app(valkey: EmbeddedValkey) -> Iterator[Callable[..., Celery]]:
    """Make apps that send to the broker, or to another one."""
    made: list[Celery] = []

    def make(url: str | None = None, **settings: Any) -> Celery:
        app = Celery("tests", set_as_current=False, broker=url or valkey.url)
        app.conf.update(settings)
        assert app.tasks[celery.TASK_NAME].name == tasks.deliver.name
        made.append(app)
        return app

    yield make
    for app in made:
        celery_producers.forget(app)
        fast_path.forget(app)


@pytest.fixture
def app(new_app: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch) -> Celery:
    """An ordinary app that the bus sends with."""
    app = new_app()
    monkeypatch.setattr(celery, "get_app", lambda: app)
    return app


def fast_path_of(app: Celery) -> fast_path.FastPath:
    """Give the fast path of an app, which has one."""
    found = fast_path.fast_path_of(app)
    assert found is not None
    return found


def with_numbered_ids(item: bytes) -> str:
    """Return an item with its random ids replaced by numbers, so that two items can be compared."""
    seen: dict[str, str] = {}
    return IDS.sub(lambda found: seen.setdefault(found[0], f"id {len(seen)}"), item.decode("ascii"))


def lists(client: Any) -> dict[bytes, list[str]]:
    """Return all lists of a broker, and delete them."""
    keys = [key for key in client.keys("*") if client.type(key) == b"list"]
    found = {key: [with_numbered_ids(item) for item in client.lrange(key, 0, -1)] for key in keys}
    client.delete(*keys)
    return found


@contextmanager
def inside_a_task(app: Celery) -> Iterator[None]:
    """Run inside a task, whose root is another one."""
    task, stack = app.tasks[celery.TASK_NAME], cast("Any", _state)
    task.push_request(id='a "child"', root_id="a root", called_directly=False)
    stack._task_stack.push(task)
    try:
        yield
    finally:
        stack._task_stack.pop()
        task.pop_request()


# What lies on the queue

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "a global prefix": {"broker_transport_options": {"global_keyprefix": "100% {ours}:"}},
    "priority steps": {"broker_transport_options": {"priority_steps": [0, 3, 6], "sep": ":"}},
    "transient": {"task_default_delivery_mode": "transient"},
}


@pytest.mark.parametrize("settings", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("priority", [None, 4])
def test_an_item_equals_celerys_except_for_ids(
    client: Any,
    new_app: Callable[..., Celery],
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    priority: Any,
):
    """The keys are the same too: this test notices a kombu that writes another item."""
    app = new_app(**settings)
    monkeypatch.setattr(app.tasks[celery.TASK_NAME], "priority", priority)
    for surroundings in (nullcontext(), inside_a_task(app)):
        with surroundings:
            for texts in (TEXTS[:1], TEXTS[1:2], TEXTS):
                celery_producers.publish(app, "a 50% queue", texts)
                celery_s = lists(client)
                fast_path_of(app).push("a 50% queue", [texts])

                assert lists(client) == celery_s
                assert [len(items) for items in celery_s.values()] == [1]


# What Celery says besides, of what our messages do without.
NOT_SAID = {
    *("eta", "expires", "group", "group_index", "parent_id", "replaced_task_nesting", "retries", "shadow"),
    *("stamped_headers", "stamps", "timelimit"),
}


def test_an_item_has_the_fields_of_celerys(new_app: Callable[..., Celery]):
    """An item is of the same task with the same arguments; this test fails if Celery changes the fields."""
    app, id_ = new_app(), "an id"
    said: dict[str, Any] = {"argsrepr": "(1 texts)", "kwargsrepr": "{}", "ignore_result": True, "root_id": id_}
    theirs = app.amqp.as_task_v2(id_, celery.TASK_NAME, (TEXTS[:1],), {}, **said)
    ours = envelope.envelope(app, TEXTS[:1], id_, None)

    assert ours["headers"] == {name: value for name, value in theirs.headers.items() if name not in NOT_SAID}
    assert not any(any(value) if isinstance(value, list) else value for value in map(theirs.headers.get, NOT_SAID))
    assert theirs.properties == {"correlation_id": ours["correlation_id"], "reply_to": ""}
    arguments, named, embedded = theirs.body
    assert [list(arguments), named] == ours["body"][:2]
    assert not any(embedded.values())


@pytest.mark.parametrize("database", [0, 3])
def test_an_item_is_in_the_database_of_the_address(
    client: Any, valkey: EmbeddedValkey, new_app: Callable[..., Celery], database: int
):
    """A virtual host is a number of Redis' databases."""
    app = new_app(f"{valkey.url}?virtual_host={database}")

    fast_path_of(app).push("q", [["text"]])

    with redis.Redis.from_url(f"{valkey.redis_url}?db={database}") as there:
        assert there.llen("q") == 1


def test_the_queue_is_declared(client: Any, new_app: Callable[..., Celery]):
    """The queue is in kombu's table of bindings once, where other clients look."""
    fast_path_of(new_app()).push("q", [["text"]])

    assert client.scard("_kombu.binding.q") == 1


def test_ids_are_unique(client: Any, new_app: Callable[..., Celery]):
    """Each publication has its own id and delivery tag, also of the same text."""
    ours = fast_path_of(new_app())
    for _ in range(50):
        ours.push("q", [["text"], ["text"]])

    found = [id_ for item in client.lrange("q", 0, -1) for id_ in set(IDS.findall(item.decode()))]
    assert len(found) == len(set(found)) == 200


def test_an_item_names_its_process(client: Any, app: Celery, monkeypatch: pytest.MonkeyPatch):
    """A forked child has another name than its parent, whatever the parent sent before."""
    publisher.publish_texts("q", ["of the parent"])
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    publisher.publish_texts("q", ["of the child"])
    publisher.forget()

    (item, _) = client.lrange("q", 0, -1)
    assert json.loads(item)["headers"]["origin"] == anon_nodename()


def test_messages_published_together_are_one_command(client: Any, app: Celery):
    """Redis takes all of them or none; they cost one round trip."""
    publisher.publish_texts("q", ["warm"])
    client.config_resetstat()

    publisher.publish_texts("q", [f"text {number}" for number in range(450)])

    assert client.info("commandstats")["cmdstat_lpush"]["calls"] == 1
    items = [json.loads(item) for item in client.lrange("q", 0, -2)]
    assert [item["headers"]["argsrepr"] for item in items] == ["(50 texts)", *["(100 texts)"] * 4]  # the first is last


# Which way is taken


class Unusual:
    """Set-ups in which Celery publishes: each returns an app, and a part of the reason."""

    @staticmethod
    def compressed(new_app: Callable[..., Celery]) -> tuple[Celery, str]:
        return new_app(task_compression="gzip"), "task_compression"

    @staticmethod
    def of_a_topic(new_app: Callable[..., Celery]) -> tuple[Celery, str]:
        queue = Queue("q", Exchange("topics", type="topic"), routing_key="q.#")
        return new_app(task_queues=[queue]), "exchange is of type topic"

    @staticmethod
    def that_expires(new_app: Callable[..., Celery]) -> tuple[Celery, str]:
        app = new_app(task_queues=[Queue("q", Exchange("q"), routing_key="q", expires=60)])
        if not hasattr(app.connection_for_write().default_channel, "_expires"):
            pytest.skip("this kombu lets no queue on Redis expire")
        return app, "more than one LPUSH"

    @staticmethod
    def in_memory(new_app: Callable[..., Celery]) -> tuple[Celery, str]:
        return new_app("memory://"), "not made of kombu's Redis transport"

    @staticmethod
    def of_several_addresses(new_app: Callable[..., Celery]) -> tuple[Celery, str]:
        url = new_app().conf.broker_url
        return new_app(f"{url};{url}"), "names several"


@pytest.mark.parametrize("unusual", ["compressed", "of_a_topic", "that_expires", "in_memory", "of_several_addresses"])
def test_unusual_set_ups_publish_through_celery(
    client: Any, new_app: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch, unusual: str
):
    """The message is published, and the reason is available."""
    app, reason = getattr(Unusual, unusual)(new_app)
    monkeypatch.setattr(celery, "get_app", lambda: app)
    published: list[Any] = []
    monkeypatch.setattr(celery_producers, "publish", lambda *args: published.append(args))

    publisher.publish_texts("q", ["a", "b"])

    assert published == [(app, "q", ["a", "b"])]
    assert reason in (publisher.why_through_celery("q") or "")


@pytest.mark.parametrize("in_place", [False, True])
def test_a_tracer_s_headers_are_each_message_s_own(
    client: Any, app: Celery, monkeypatch: pytest.MonkeyPatch, in_place: bool
):
    """A tracer may wrap kombu's publish(): the headers of the first message are not added to the next."""
    real, numbers = Producer.publish, iter(range(10))

    def publish(self: Any, body: Any, headers: Any, **more: Any) -> Any:
        headers = headers if in_place else dict(headers)
        headers["traceparent"] = f"span {next(numbers)}"
        return real(self, body, headers=headers, **more)

    monkeypatch.setattr(Producer, "publish", publish)
    for text in ("a", "b"):
        publisher.publish_texts("q", [text])

    seen = [json.loads(item)["headers"]["traceparent"] for item in client.lrange("q", 0, -1)]
    assert len(set(seen)) == 2
    assert "headers of their own" in (publisher.why_through_celery("q") or "")


def test_a_custom_transports_additions_are_each_messages_own(client: Any, app: Celery, monkeypatch: pytest.MonkeyPatch):
    """A custom transport may add a number, or a signature, to each message."""
    real, numbers = Channel._put, iter(range(100))

    def put(self: Any, queue: str, message: Any, **more: Any) -> Any:
        message["properties"]["number"] = next(numbers)
        return real(self, queue, message, **more)

    monkeypatch.setattr(Channel, "_put", put)
    for text in ("a", "b"):
        publisher.publish_texts("q", [text])

    seen = [json.loads(item)["properties"]["number"] for item in client.lrange("q", 0, -1)]
    assert len(set(seen)) == 2
    assert "differs from message to message" in (publisher.why_through_celery("q") or "")


def test_ordinary_set_ups_write_directly(client: Any, app: Celery):
    """There is no reason to report."""

    assert publisher.why_through_celery("q") is None


def test_publish_handlers_are_checked_for_each_message(client: Any, app: Celery):
    """Tracers and handlers of our task are called from their connection to their disconnection."""
    heard = []

    def listener(sender, **kwargs):
        heard.append(sender)

    publisher.publish_texts("q", ["a"])
    before_task_publish.connect(listener, sender=celery.TASK_NAME)
    try:
        publisher.publish_texts("q", ["b"])
        assert "listens" in (publisher.why_through_celery("q") or "")
    finally:
        before_task_publish.disconnect(listener, sender=celery.TASK_NAME)
    publisher.publish_texts("q", ["c"])

    assert heard == [celery.TASK_NAME]
    assert client.llen("q") == 3


def test_eager_mode_is_checked_for_each_message(client: Any, broker_url: str, monkeypatch: pytest.MonkeyPatch):
    """A test's fixture may set it on the app, or in the settings, after earlier messages."""
    ran: list[Any] = []
    monkeypatch.setattr("signalbus.receiving.routing.batch.deliver", lambda texts, **_kwargs: ran.extend(texts))

    publisher.publish_texts("q", ["to the broker"])
    with eager():
        publisher.publish_texts("q", ["on the app"])
    publisher.publish_texts("q", ["to the broker"])
    with override_settings(CELERY_TASK_ALWAYS_EAGER=True):
        cast("Any", celery.get_app().conf.changes).pop("task_always_eager", None)  # what eager() has left
        publisher.publish_texts("q", ["in the settings"])
    publisher.publish_texts("q", ["to the broker"])

    assert ran == ["on the app", "in the settings"]
    assert client.llen("q") == 3


def test_eager_mode_is_read_with_the_hosts_namespace(
    client: Any, new_app: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch
):
    """The host chooses the namespace of its Celery settings."""
    app = new_app()
    app.config_from_object("django.conf:settings", namespace="SHOP")
    monkeypatch.setattr(celery, "get_app", lambda: app)
    ran: list[Any] = []
    monkeypatch.setattr("signalbus.receiving.routing.batch.deliver", lambda texts, **_kwargs: ran.extend(texts))

    publisher.publish_texts("q", ["to the broker"])
    with override_settings(SHOP_TASK_ALWAYS_EAGER=True):
        publisher.publish_texts("q", ["here"])
    publisher.publish_texts("q", ["to the broker"])

    assert ran == ["here"]
    assert client.llen("q") == 2


# Whatever happens to connections


def used_by(ours: fast_path.FastPath) -> Any:
    """Return the connection that a fast path would use next."""
    return ours._slots[-1][0]


def test_after_a_timeout_nothing_is_pushed_again(client: Any, valkey: EmbeddedValkey, new_app: Callable[..., Celery]):
    """The broker has taken the message: a duplicate would run twice."""
    with override_settings(SIGNALBUS=SHORT):
        ours = fast_path_of(new_app())
        ours.push("q", [["warm"]])
        assert valkey.pid is not None
        os.kill(valkey.pid, os_signal.SIGSTOP)
        try:
            with pytest.raises(redis.TimeoutError):
                ours.push("q", [["once"]])
        finally:
            os.kill(valkey.pid, os_signal.SIGCONT)

    wait_until(lambda: client.llen("q") == 2, what="the broker to take what it had been sent")
    ours.push("q", [["next"]])
    assert client.llen("q") == 3


def test_a_connection_with_expired_credentials_is_replaced(client: Any, new_app: Callable[..., Celery], valkey):
    """The new one sends its password."""
    ours = fast_path_of(new_app(f"redis+socket://:secret@{valkey.socket}"))
    client.config_set("requirepass", "secret")
    try:
        ours.push("q", [["text"]])
        stale = used_by(ours)
        stale.send_command("RESET")
        stale.read_response()

        ours.push("q", [["text"]])

        assert used_by(ours) is not stale
    finally:
        client.config_set("requirepass", "")
    assert client.llen("q") == 2


def test_a_replica_is_tried_at_most_twice(client: Any, new_app: Callable[..., Celery]):
    """After a fail-over the old primary answers READONLY: a new connection is tried each time."""
    ours = fast_path_of(new_app())
    ours.push("q", [["text"]])
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(redis.exceptions.ReadOnlyError):
            ours.push("q", [["text"]])
        assert used_by(ours) is None
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")
    ours.push("q", [["text"]])
    assert client.llen("q") == 2


def test_a_refused_command_keeps_the_connection(client: Any, new_app: Callable[..., Celery]):
    """The broker has answered, so the connection works."""
    ours = fast_path_of(new_app())
    ours.push("q", [["text"]])
    client.set("q", "not a list")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        ours.push("q", [["text"]])
    connection = used_by(ours)
    client.delete("q")

    ours.push("q", [["text"]])

    assert used_by(ours) is connection


def test_an_idle_connection_is_checked_before_use(client: Any, new_app: Callable[..., Celery], monkeypatch):
    """The broker may have closed it meanwhile."""
    ours = fast_path_of(new_app())
    ours.push("q", [["text"]])
    closed = used_by(ours)
    monkeypatch.setattr(fast_path, "IDLE", 0.0)
    client.client_kill_filter(_type="normal", skipme=True)
    monkeypatch.setattr(closed, "send_packed_command", lambda *args, **kwargs: pytest.fail("written to a closed one"))

    ours.push("q", [["text"]])

    assert client.llen("q") == 2


def test_an_interrupted_publication_leaves_no_answer_behind(client: Any, new_app: Callable[..., Celery], monkeypatch):
    """A killed greenlet, or Ctrl-C, between command and answer: the next one must not read it."""
    ours = fast_path_of(new_app())
    ours.push("q", [["text"]])
    interrupted = used_by(ours)

    def read_response() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupted, "read_response", read_response)
    with pytest.raises(KeyboardInterrupt):
        ours.push("q", [["text"]])

    assert used_by(ours) is None
    assert interrupted._sock is None


def test_threads_share_a_few_connections(client: Any, new_app: Callable[..., Celery]):
    """Forty threads that send at once lose nothing, and open no more than ten connections."""
    ours = fast_path_of(new_app())
    ours.push("q", [["text"]])
    before = client.info("stats")["total_connections_received"]
    failed: list[Exception] = []

    def send() -> None:
        try:
            for _ in range(25):
                ours.push("q", [["text"]])
        except (redis.RedisError, OSError) as error:
            failed.append(error)

    threads = [threading.Thread(target=send) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert failed == []
    assert client.llen("q") == 1001
    assert client.info("stats")["total_connections_received"] - before < fast_path.CONNECTIONS


def test_waiting_threads_get_connections_in_order(client: Any, new_app: Callable[..., Celery]):
    """Ten threads that send without a pause must not keep another one waiting until its time is over."""
    ours = fast_path_of(new_app())
    sent, failed = [0] * (fast_path.CONNECTIONS + 4), threading.Event()
    enough = threading.Event()

    def send(number: int) -> None:
        try:
            while not enough.is_set():
                ours.push("q", [["text"]])
                sent[number] += 1
        except TimeoutError:
            failed.set()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(sent))]
    with override_settings(SIGNALBUS={"CONNECT_TIMEOUT": 1.0}):
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: min(sent) > 20 or failed.is_set(), what="all threads to have had their turns")
        finally:
            enough.set()
            for thread in threads:
                thread.join(timeout=30)

    assert not failed.is_set()
    assert (len(ours._slots), len(ours._waiters)) == (fast_path.CONNECTIONS, 0)


def test_an_interrupted_wait_keeps_no_connection(
    client: Any, new_app: Callable[..., Celery], monkeypatch: pytest.MonkeyPatch
):
    """A time limit or a killed greenlet ends the wait just before or after it gets one."""
    ours = fast_path_of(new_app())
    for served in (False, True):
        in_use = [ours._acquire() for _ in range(fast_path.CONNECTIONS)]

        class Interrupted(fast_path._Waiter):
            """Is interrupted."""

            def __init__(self, in_use: Any = in_use, served: bool = served) -> None:
                super().__init__()
                wait = self.served.wait

                def interrupt(timeout: float | None = None) -> bool:
                    if timeout is None:
                        return wait(10)
                    if served:
                        ours._release(in_use.pop()[0])
                    raise KeyboardInterrupt

                self.served.wait = interrupt  # type: ignore[method-assign]

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(fast_path, "_Waiter", Interrupted)
            ours.push("q", [["text"]])
        for connection, _ in in_use:
            ours._release(connection)

        assert (len(ours._slots), len(ours._waiters)) == (fast_path.CONNECTIONS, 0)
    ours.push("q", [["text"]])


def test_a_wait_for_a_connection_has_a_limit(client: Any, new_app: Callable[..., Celery]):
    """The limit is the time in which a connection may be made."""
    ours = fast_path_of(new_app())
    with override_settings(SIGNALBUS=SHORT):
        in_use = [ours._acquire() for _ in range(fast_path.CONNECTIONS)]
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="in use"):
            ours.push("q", [["text"]])
        assert 0.3 < time.monotonic() - started < 2

        threading.Timer(0.1, ours._release, in_use[0][:1]).start()
        ours.push("q", [["text"]])


def test_threads_do_not_wait_for_each_other_s_timeouts(
    client: Any, valkey: EmbeddedValkey, new_app: Callable[..., Celery]
):
    """All report a hanging broker at about the same time."""
    failed: list[BaseException] = []

    def send(ours: fast_path.FastPath) -> None:
        try:
            ours.push("q", [["text"]])
        except (OperationalError, redis.RedisError, OSError) as error:
            failed.append(error)

    with override_settings(SIGNALBUS=SHORT):
        ours = fast_path_of(new_app())
        threads = [threading.Thread(target=send, args=(ours,)) for _ in range(10)]
        assert valkey.pid is not None
        os.kill(valkey.pid, os_signal.SIGSTOP)
        started = time.monotonic()
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(timeout=30)
            took = time.monotonic() - started
        finally:
            os.kill(valkey.pid, os_signal.SIGCONT)

    assert len(failed) == 10
    assert took < 3


GREEN = """
from gevent import monkey; monkey.patch_all()
import gevent, sys
from celery import Celery
import django; django.setup()
from signalbus.broker import fast_path
ours = fast_path.fast_path_of(Celery("green", set_as_current=False, broker=sys.argv[1]))
ours.push("q", [["text"]])
sending = [gevent.spawn(lambda: [ours.push("q", [["text"]]) for _ in range(10)]) for _ in range(50)]
gevent.joinall(sending, timeout=20, raise_error=True)
assert all(one.successful() for one in sending)
"""


def test_greenlets_share_a_few_connections(client: Any, valkey: EmbeddedValkey):
    """Fifty greenlets that send at once lose nothing."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(CHECKOUT)}
    subprocess.run([sys.executable, "-c", GREEN, valkey.url], check=True, timeout=60, env=environment)

    assert client.llen("q") == 501


# TLS


@pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes the certificate, is not installed")
def test_tls_certificates_are_verified(tmp_path: Path, new_app: Callable[..., Celery]):
    """The connections are made like kombu's, as the app's settings say."""
    certificate, key = make_certificate(tmp_path)
    port = free_port()
    with EmbeddedValkey(port=port) as server, behind_tls(port, certificate, key) as tls_port:
        url = f"rediss://127.0.0.1:{tls_port}/0"
        trusting = {"ssl_cert_reqs": "required", "ssl_ca_certs": str(certificate)}
        ours = fast_path_of(new_app(url, broker_use_ssl=trusting))
        ours.push("q", [["text"]])
        assert isinstance(used_by(ours), redis.SSLConnection)
        used_by(ours).disconnect()
        ours.push("q", [["again"]])
        with redis.Redis.from_url(server.redis_url) as client:
            assert client.llen("q") == 2

        with pytest.raises(Exception, match=r"(?i)certificate"):
            fast_path_of(new_app(url, broker_use_ssl={"ssl_cert_reqs": "required"})).push("q", [["text"]])


def test_a_broker_other_than_redis_has_no_fast_path(new_app: Callable[..., Celery]):
    """The process logs the reason once, for all queues."""
    app = new_app("memory://")

    assert fast_path.fast_path_of(app) is None
    assert "memory" in (fast_path.why_not(app) or "")
