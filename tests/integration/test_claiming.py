"""The transport that claims: the keys in Redis before, during and after a message's run."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Queue

from signalbus.celery import TASK_NAME
from signalbus.embedded import EmbeddedValkey
from signalbus.transport import broker_claims, heartbeat, lua_scripts, unacked
from signalbus.transport.broker_claims import Work
from signalbus.transport.consumers import consumers_of
from signalbus.transport.progress import BEGUN, DONE, WAITING
from tests.integration.claiming_consumer import ClaimingConsumer
from tests.other_servers.daemon import free_port
from tests.other_servers.tls import OPENSSL, behind_tls, make_certificate
from tests.servers import CHECKOUT, wait_until
from tests.unit.transport.queue_items import item

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def client(valkey: EmbeddedValkey) -> Iterator[Any]:
    """The broker, empty, as redis-py sees it."""
    if valkey.pid is None:
        valkey.start()
    with redis.Redis.from_url(valkey.redis_url) as found:
        found.flushall()
        yield found
        found.config_set("maxmemory", 0)


@pytest.fixture
def url(valkey: EmbeddedValkey, client: Any) -> str:
    """Its address for kombu."""
    return valkey.url


def publish(url: str, *bodies: Any, queue: str = "work", priority: int | None = None, **options: Any) -> None:
    """Publish with kombu's own transport, as every sender does."""
    with Connection(url, transport_options=options) as connection:
        producer = connection.Producer(serializer="json")
        for body in bodies:
            where = Queue(queue, Exchange(queue), queue)
            producer.publish(body, exchange=where.exchange, routing_key=queue, declare=[where], priority=priority or 0)


def stock_channel(connection: Any) -> Any:
    """Return the channel of a connection with kombu's transport."""
    return connection.default_channel


def is_over(client: Any) -> bool:
    """Return whether no message waits and none is claimed."""
    return not client.llen("work") and not client.hlen("unacked") and not client.zcard("unacked_index")


def marked(message: Any) -> bool:
    """Return whether a message is marked as redelivered."""
    return bool(message.headers.get("redelivered"))


class Knows(Work):
    """A worker with this number of free processes, and the messages in flight."""

    def __init__(self, free: int | None = None, given_up: bool = True) -> None:
        self.places = free
        self.tags: set[str] = set()
        self.gives_up = given_up

    def free(self) -> int | None:
        return self.places

    def in_flight(self) -> set[str]:
        return self.tags

    def given_up(self, tags):
        return set(tags) - self.tags if self.gives_up else set()


class TestClaims:
    def test_a_claim_is_in_kombus_keys(self, url, client):
        """The claim is in kombu's hash and its index, with the unchanged item, so a worker with kombu's transport can
        restore it.
        """
        publish(url, "a")
        raw = client.lindex("work", 0)
        with ClaimingConsumer(url) as claiming:
            (message,) = claiming.take(1)
            (tag,) = client.zrange("unacked_index", 0, -1)
            assert tag.decode() == message.delivery_tag
            assert json.loads(client.hget("unacked", tag)) == [json.loads(raw), "", "work"]
            assert client.llen("work") == 0
            claiming.acknowledge()
            assert is_over(client)

    def test_the_oldest_messages_are_claimed_up_to_the_prefetch_count(self, url, client):
        """The rest stays in the queue."""
        publish(url, *range(9))
        with ClaimingConsumer(url, prefetch=4) as claiming:
            assert [message.payload for message in claiming.take(4)] == [0, 1, 2, 3]
            claiming.run_for(0.1)
            assert client.llen("work") == 5
            claiming.acknowledge(claiming.messages[:3])
            claiming.take(7)
            assert claiming.bodies() == [0, 1, 2, 3, 4, 5, 6]

    def test_no_more_messages_are_claimed_than_can_begin(self, url, client):
        """The prefetch count may be larger, but another worker may be idle."""
        publish(url, *range(9))
        work = Knows(free=2)
        with ClaimingConsumer(url, work=work) as claiming:
            claiming.take(2)
            work.places = 0
            claiming.run_for(0.1)
            assert client.llen("work") == 7

    def test_more_messages_in_flight_than_processes_leave_no_capacity(self, url):
        """A host's tasks with a countdown may be due; the capacity is zero, not negative."""
        with ClaimingConsumer(url, work=Knows(free=-3)) as claiming:
            assert claiming.channel.slots() == 0

    def test_claims_begin_after_a_consumer_without_acknowledgements_is_gone(self, url, client):
        """Celery has one when a worker starts, for the other workers' replies."""
        publish(url, "a")
        claiming = ClaimingConsumer(url)
        replies = Consumer(claiming.connection.default_channel, [Queue("replies")], no_ack=True)
        replies.consume()
        replies.cancel()
        with claiming:
            claiming.take(1)
            assert claiming.channel.is_claiming

    def test_broadcasts_are_received(self, url, client):
        """Celery's remote control uses a channel of the same transport."""
        heard: list[Any] = []
        with ClaimingConsumer(url) as claiming:
            exchange = Exchange("news", type="fanout")
            listener = Consumer(claiming.connection.channel(), [Queue("mine", exchange)], no_ack=True)
            listener.register_callback(lambda body, _message: heard.append(body))
            listener.consume()
            claiming.run_for(0.1)
            with Connection(url) as connection:
                connection.Producer().publish("told", exchange=exchange, declare=[exchange])
            claiming.run(lambda: heard)
        assert heard == ["told"]

    def test_urgent_messages_are_claimed_first(self, url):
        """As with kombu, each priority has a list of its own."""
        publish(url, "later")
        publish(url, "now", priority=9)  # kombu's priorities on Redis: 0 is the most urgent
        publish(url, "soon", priority=3)
        with ClaimingConsumer(url) as claiming:
            claiming.take(3)
            assert claiming.bodies() == ["later", "soon", "now"]

    def test_all_keys_have_the_prefix(self, url, client):
        """``global_keyprefix`` applies to each of them."""
        publish(url, "a", global_keyprefix="shop:")
        with ClaimingConsumer(url, global_keyprefix="shop:") as claiming:
            claiming.take(1)
            assert client.hlen("shop:unacked") == 1
            claiming.acknowledge()
            assert {key.decode() for key in client.scan_iter()} >= {"shop:unacked_owners"}
            assert not [key for key in client.scan_iter() if not key.startswith(b"shop:")]

    def test_scripts_are_loaded_again_after_a_restart(self, url, client):
        """A new server does not have them."""
        with ClaimingConsumer(url) as claiming:
            publish(url, "a")
            claiming.take(1)
            client.script_flush()
            publish(url, "b")
            claiming.take(2)
            claiming.acknowledge()
            assert is_over(client)

    def test_messages_are_claimed_from_a_full_server(self, url, client):
        """A full server that no worker can claim from would stay full."""
        work = Knows(free=0)
        with ClaimingConsumer(url, prefetch=3, work=work) as claiming:
            publish(url, *range(20))
            client.config_set("maxmemory", 1)
            with pytest.raises(redis.OutOfMemoryError):
                client.lpush("work", "more")
            claiming.channel.qos.restore_visible(interval=1)
            work.places = None
            for count in range(3, 21):
                claiming.take(count)
                claiming.acknowledge(claiming.messages[count - 3 : count - 2])
            claiming.acknowledge(claiming.messages[18:])
            assert is_over(client)


class TestNotifications:
    def test_an_idle_consumer_is_notified_of_each_message(self, url, client):
        """Redis notifies it over the connection that it claims with; it polls nothing."""
        with ClaimingConsumer(url) as claiming:
            claiming.run_for(0.1)
            before = client.info("stats")["total_commands_processed"]
            claiming.run_for(0.5)
            assert client.info("stats")["total_commands_processed"] - before == 1  # this test's own
            for count in range(1, 4):
                publish(url, count)
                claiming.take(count, timeout=0.5)

    def test_forty_queues_need_one_connection(self, url, client):
        """kombu's own two come besides; no queue starves."""
        queues = [f"q{number}" for number in range(40)]
        before = len(client.client_list())
        with ClaimingConsumer(url, *queues, prefetch=5) as claiming:
            claiming.run_for(0.1)
            assert len(client.client_list()) - before <= 3
            publish(url, *range(200), queue="q0")
            for queue in queues[1:]:
                publish(url, queue, queue=queue)
            for count in range(1, 240):
                claiming.take(count)
                claiming.messages[count - 1].ack()
            assert {body for body in claiming.bodies()[:60] if isinstance(body, str)} == set(queues[1:])

    def test_a_queue_that_is_added_later_is_consumed(self, url):
        """Remote control can add one."""
        publish(url, "there already", queue="more")
        with ClaimingConsumer(url) as claiming:
            claiming.run_for(0.1)
            claiming.consumer.add_queue(Queue("more", Exchange("more"), "more"))
            claiming.consumer.consume()
            claiming.take(1)
            publish(url, "new", queue="more")
            claiming.take(2)
            assert claiming.bodies() == ["there already", "new"]


@pytest.mark.skipif(OPENSSL is None, reason="openssl, which makes the certificate, is not installed")
def test_claims_over_tls(tmp_path):
    """The connection is made like kombu's own."""
    certificate, key = make_certificate(tmp_path)
    with EmbeddedValkey(port=(port := free_port())) as server, behind_tls(port, certificate, key) as tls_port:
        trusting = {"ssl_cert_reqs": "required", "ssl_ca_certs": str(certificate)}
        with ClaimingConsumer(f"rediss://127.0.0.1:{tls_port}/0", ssl=trusting) as claiming:
            claiming.run_for(0.1)
            for count in range(1, 4):
                publish(server.url, "x" * 100_000)
                claiming.take(count, timeout=1)
            claiming.acknowledge()
            assert claiming.channel.is_claiming


def test_the_connections_name_lists_its_queues(url, client):
    """``manage.py signalbus status`` reads it in Redis's list of clients; it changes with the queues."""
    with ClaimingConsumer(url, "work", "mails, too", global_keyprefix="shop:") as claiming:
        claiming.run_for(0.1)
        assert [consumers_of(client, 0, f"shop:{queue}") for queue in ("work", "mails, too", "x")] == [1, 1, 0]
        claiming.consumer.cancel_by_queue("work")
        publish(url, "news", queue="mails, too", global_keyprefix="shop:")
        claiming.take(1)
        assert [consumers_of(client, 0, f"shop:{queue}") for queue in ("work", "mails, too", "x")] == [0, 1, 0]
    assert consumers_of(client, 0, "shop:mails, too") == 0


def test_a_replaced_prefetch_limit_is_used(url, client):
    """Celery's worker_disable_prefetch sets one."""
    publish(url, *range(5))
    with ClaimingConsumer(url) as claiming:
        claiming.channel.qos.can_consume = lambda: len(claiming.messages) < 2
        claiming.take(2)
        claiming.run_for(0.1)
        assert client.llen("work") == 3


class TestEnds:
    def test_unacknowledged_messages_are_requeued_in_order(self, url, client):
        """The channel closes; they are marked, because they may have begun."""
        publish(url, *range(5))
        with ClaimingConsumer(url) as claiming:
            claiming.take(5)
            claiming.acknowledge(claiming.messages[1:2])
        with ClaimingConsumer(url) as another:
            assert [message.payload for message in another.take(4)] == [0, 2, 3, 4]
            assert all(marked(message) for message in another.messages)

    def test_a_running_message_is_not_requeued(self, url, client):
        """A message that runs when the connection breaks is acknowledged over the next connection."""
        publish(url, "runs", "waits")
        work = Knows()
        with ClaimingConsumer(url, work=work) as claiming:
            runs, _ = claiming.take(2)
            work.tags = {runs.delivery_tag}
        assert client.hlen("unacked") == 1
        runs.ack()
        with ClaimingConsumer(url, work=work, alone=False) as again:
            again.take(1)
            assert again.bodies() == ["waits"]
            again.acknowledge()
            assert is_over(client)

    def test_messages_that_end_while_the_channel_closes(self, url, client, monkeypatch):
        """Messages that end meanwhile are acknowledged, and waiting ones are requeued."""
        publish(url, *range(4))
        work = Knows()
        with ClaimingConsumer(url, work=work) as claiming:
            last, owner = claiming.take(4)[-1], claiming.owner
            work.tags = {last.delivery_tag}

            class Ends(set[str]):
                def __contains__(self, tag: object) -> bool:
                    owner.end(last.delivery_tag)
                    return super().__contains__(tag)

            claims_of = owner.claims_of
            monkeypatch.setattr(owner, "claims_of", lambda tags: Ends(claims_of(tags)))
        with ClaimingConsumer(url) as another:
            assert [message.payload for message in another.take(3)] == [0, 1, 2]

    def test_acknowledgements_survive_a_lost_connection(self, url, client):
        """These are those that were sent, and those of messages that end without a connection."""
        publish(url, "a", "b")
        work = Knows()
        with ClaimingConsumer(url, work=work) as claiming:
            first, second = claiming.take(2)
            work.tags = {second.delivery_tag}
            first.ack()
            claiming.channel.tick()  # sent
            client.client_kill_filter(_type="normal", skipme=True)
            with pytest.raises(redis.ConnectionError):
                claiming.run_for(5)
        second.ack()
        with ClaimingConsumer(url, work=work, alone=False) as again:
            again.run(lambda: is_over(client))
            assert again.bodies() == []

    def test_a_claim_whose_reply_is_lost_is_requeued_unchanged(self, url, client):
        """The next connection of the same process does it: no other would while the process lives."""
        with ClaimingConsumer(url, work=Knows(given_up=False)) as claiming:
            claiming.run_for(0.1)
            publish(url, "a", "b")
            claiming.channel._send(5)
            wait_until(lambda: client.hlen("unacked") == 2)
            claiming.channel._tracking_connection.close()
        with ClaimingConsumer(url, alone=False) as again:
            again.take(2)
            assert again.bodies() == ["a", "b"]
            assert not any(marked(message) for message in again.messages)

    def test_a_claim_answered_while_the_channel_closes_is_requeued_unchanged(self, url, client):
        """The claimed message has not begun."""
        with ClaimingConsumer(url) as claiming:
            claiming.run_for(0.1)
            publish(url, "a", "b")
            claiming.channel._send(5)
        with ClaimingConsumer(url) as another:
            another.take(2)
            assert another.bodies() == ["a", "b"]
            assert not any(marked(message) for message in another.messages)

    def test_a_rejected_message_is_dropped_or_requeued(self, url, client):
        """A requeued one goes behind the others."""
        publish(url, "gone", "again", "other")
        with ClaimingConsumer(url, prefetch=2) as claiming:
            gone, again = claiming.take(2)
            again.requeue()
            gone.reject()
            claiming.take(4)
            assert claiming.bodies() == ["gone", "again", "other", "again"]
            assert marked(claiming.messages[3])
            claiming.acknowledge(claiming.messages[2:])
            assert is_over(client)

    def test_acknowledgements_are_sent_at_once_during_a_shutdown(self, url, client):
        """The worker may be killed before its last receiver has ended."""
        publish(url, "a")
        with ClaimingConsumer(url) as claiming:
            (message,) = claiming.take(1)
            claiming.consumer.cancel()
            message.ack()
            assert is_over(client)

    def test_a_pending_claim_is_requeued_at_once_during_a_shutdown(self, url, client):
        """The channel closes when the last receiver has ended, which may take minutes."""
        with ClaimingConsumer(url) as claiming:
            claiming.run_for(0.1)
            publish(url, "a", "b")
            claiming.channel._send(5)
            claiming.consumer.cancel()
            assert client.llen("work") == 2
            assert not client.hlen("unacked")

    def test_threads_acknowledge_each_message_during_a_shutdown(self, url, client, monkeypatch):
        """Two threads may end their messages at the same time."""
        publish(url, *range(60))
        with ClaimingConsumer(url, prefetch=60, work=Knows(given_up=False)) as claiming:
            claiming.take(60)
            claiming.consumer.cancel()
            acknowledge = type(claiming.channel.unacked).acknowledge

            def slowly(unacked, owner):
                acknowledge(unacked, owner)
                threading.Event().wait(0.001)

            monkeypatch.setattr(type(claiming.channel.unacked), "acknowledge", slowly)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda message: message.ack(), claiming.messages))
            assert is_over(client)
            assert not claiming.owner.acknowledged


class TestHeartbeats:
    def test_an_idle_worker_removes_its_name(self, url, client, monkeypatch):
        """While no worker has claims, a worker sends one command."""
        publish(url, "a")
        with ClaimingConsumer(url) as claiming:
            claiming.take(1)
            claiming.acknowledge()
            thread = claiming.owner.heartbeat
            client.zadd("unacked_owners", {claiming.owner.id: 5})
            thread.send_heartbeat(claiming.channel)
            assert client.zcard("unacked_owners") == 1
            monkeypatch.setattr(thread, "_in_flight_at", thread._in_flight_at - 2 * unacked.LEASE)
            thread.send_heartbeat(claiming.channel)
            assert not client.zcard("unacked_owners")
            before = client.info("stats")["total_commands_processed"]
            thread.send_heartbeat(claiming.channel)
            assert client.info("stats")["total_commands_processed"] - before == 2  # this test's own beside it

    def test_a_dead_workers_claims_are_requeued(self, url, client, caplog):
        """The next worker that sends a heartbeat does it, by the server's clock; they are marked, and in order."""
        publish(url, *range(3))
        with ClaimingConsumer(url, work=Knows(given_up=False)) as dead:
            dead.take(3)
        client.zincrby("unacked_owners", -unacked.LEASE - 1, dead.owner.id)
        with ClaimingConsumer(url) as another:
            another.owner.heartbeat.send_heartbeat(another.channel)
            another.take(3)
            assert another.bodies() == [0, 1, 2]
            assert all(marked(message) for message in another.messages)
            assert client.zscore("unacked_owners", dead.owner.id) is None
        assert "took 3 messages back" in caplog.text

    def test_forged_names_do_not_hide_a_dead_worker(self, url, client):
        """Anybody who can write to Redis can add names that seem dead for longer."""
        publish(url, "a")
        with ClaimingConsumer(url, work=Knows(given_up=False)) as dead:
            dead.take(1)
        client.zadd("unacked_owners", {dead.owner.id: 5} | {b"\xff%d" % number: 1 for number in range(20)})
        with ClaimingConsumer(url) as another:
            for _ in range(3):
                another.owner.heartbeat.send_heartbeat(another.channel)
            another.take(1)
            assert client.zcard("unacked_owners") == 1

    def test_a_living_workers_claims_are_not_requeued(self, url, client):
        """Another worker may have considered it dead the moment before it claimed."""
        publish(url, "a")
        with ClaimingConsumer(url) as living, ClaimingConsumer(url) as another:
            living.take(1)
            assert another.channel.unacked.reclaim(living.owner.id) == 0
            assert client.llen("work") == 0
            assert client.zscore("unacked_owners", living.owner.id)

    def test_heartbeats_go_on_without_celerys_connection(self, url, client, monkeypatch):
        """Celery waits for up to half a minute between two attempts to connect."""
        monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.02)
        publish(url, "runs")
        work = Knows()
        with ClaimingConsumer(url, work=work) as claiming:
            (runs,) = claiming.take(1)
            work.tags = {runs.delivery_tag}
        client.zadd("unacked_owners", {claiming.owner.id: 5})
        client.zadd("unacked_index", {runs.delivery_tag: 5})
        wait_until(lambda: client.zscore("unacked_owners", claiming.owner.id) > 5)
        wait_until(lambda: client.zscore("unacked_index", runs.delivery_tag) > 5)
        runs.ack()
        claiming.owner.heartbeat.join(5)
        assert not claiming.owner.heartbeat.is_alive()
        assert is_over(client)

    def test_a_claim_is_in_flight_from_its_command_to_its_acknowledgement(self, url, client):
        """The event loop need not have read the reply."""
        with ClaimingConsumer(url) as claiming:
            claiming.run_for(0.1)
            owner, channel = claiming.owner, claiming.channel
            assert not owner.is_in_flight()
            publish(url, "a")
            channel._send(5)
            assert owner.is_in_flight()
            claiming.take(1)
            assert not owner.asked
            claiming.messages[0].ack()
            assert owner.is_in_flight()
            channel.tick()
            assert owner.is_in_flight()
            claiming.run(lambda: not owner.is_in_flight())
            assert is_over(client)

    def test_no_worker_is_declared_dead_after_an_outage_of_the_server(self, url, client):
        """The others may not have reached it yet."""
        publish(url, "a")
        with ClaimingConsumer(url, work=Knows(given_up=False)) as other:
            other.take(1)
        with ClaimingConsumer(url):
            owners = dict(broker_claims._owners)
        with ClaimingConsumer(url) as fresh:
            client.zadd("unacked_owners", {other.owner.id: 5})
            broker_claims._owners.update(owners)
            with ClaimingConsumer(url, alone=False) as again:
                again.owner.heartbeat.send_heartbeat(again.channel)
                assert client.llen("work") == 0
            fresh.owner.heartbeat.send_heartbeat(fresh.channel)
            fresh.take(1)

    def test_a_worker_without_an_answer_declares_no_other_dead(self, url, client, monkeypatch):
        """The worker asks again soon, and waits for the heartbeats of the others."""
        monkeypatch.setattr(heartbeat, "HEARTBEAT_INTERVAL", 0.02)
        monkeypatch.setattr(heartbeat, "AGAIN", 0.02)
        publish(url, "a")
        with ClaimingConsumer(url, work=Knows(given_up=False)) as other:
            other.take(1)
        with ClaimingConsumer(url) as claiming:
            asked = []
            answer = type(claiming.channel.unacked).first_owner

            def first_owner(unacked):
                asked.append(unacked)
                if len(asked) == 1:
                    client.zadd("unacked_owners", {other.owner.id: 5})
                    raise redis.ConnectionError
                return answer(unacked)

            monkeypatch.setattr(type(claiming.channel.unacked), "first_owner", first_owner)
            wait_until(lambda: len(asked) > 3)
            assert client.llen("work") == 0

    def test_no_visibility_timeout_restores_a_running_message(self, url, client):
        """The heartbeats renew its time; a message that no process knows grows old."""
        publish(url, "runs", "forgotten")
        work = Knows()
        with ClaimingConsumer(url, work=work) as claiming:
            runs, forgotten = claiming.take(2)
            work.tags = {runs.delivery_tag}
            for message in (runs, forgotten):
                client.zadd("unacked_index", {message.delivery_tag: 5})
            claiming.owner.heartbeat.send_heartbeat(claiming.channel)
            assert client.zscore("unacked_index", runs.delivery_tag) > 5
            with Connection(url, transport_options={"visibility_timeout": 10}) as stock:
                stock_channel(stock).qos.restore_visible(interval=1)
            assert client.hkeys("unacked") == [runs.delivery_tag.encode()]
            assert client.llen("work") == 1

    def test_a_worker_with_kombus_transport_restores_our_claims(self, url, client):
        """A worker with kombu's transport does so after its visibility timeout: our claims have kombu's format."""
        publish(url, "a")
        with ClaimingConsumer(url, work=Knows(given_up=False)) as dead:
            (message,) = dead.take(1)
        client.zadd("unacked_index", {message.delivery_tag: 5})
        with Connection(url) as stock:
            stock_channel(stock).qos.restore_visible(interval=1)
            assert stock_channel(stock).basic_get("work").payload == "a"

    def test_we_restore_the_claims_of_a_worker_with_kombus_transport(self, url, client):
        """After our visibility timeout, our worker restores the claims of a worker with kombu's transport."""
        publish(url, "a")
        with Connection(url) as stock:
            stock_channel(stock).basic_get("work")
            stock_channel(stock).do_restore = False
        (tag,) = client.zrange("unacked_index", 0, -1)
        client.zadd("unacked_index", {tag: 5})
        with ClaimingConsumer(url) as claiming:
            claiming.channel.qos.restore_visible(interval=1)
            claiming.take(1)
            assert marked(claiming.messages[0])


def test_messages_held_by_the_hosts_own_workers_are_not_reclaimed(url, client):
    """Tasks with a countdown are in the same keys, beyond our visibility timeout, and of another queue."""
    publish(url, *range(3), queue="hosts")
    with Connection(url) as stock:
        held = [stock_channel(stock).basic_get("hosts") for _ in range(3)]
        stock_channel(stock).do_restore = False
        client.zadd("unacked_index", {message.delivery_tag: 5 for message in held})
        with ClaimingConsumer(url) as claiming:
            claiming.channel.qos.restore_visible(interval=1)
            claiming.channel.qos.restore_visible(interval=1)
            assert client.llen("hosts") == 0
            claiming.consumer.add_queue(Queue("hosts", Exchange("hosts"), "hosts"))
            claiming.consumer.consume()
            claiming.channel.qos.restore_visible(interval=1)
            claiming.take(3)


def given_a_batch(client: redis.Redis) -> Knows:
    """Put a batch of three into the queue; return a worker that reads it."""
    client.rpush("work", json.dumps(item("a", "b", "c", queue="work")))
    knows = Knows()
    knows.task = TASK_NAME
    return knows


def test_a_batch_is_divided_once_if_the_answer_is_lost(valkey, client, monkeypatch):
    """The command is repeated, and puts nothing into the queue a second time."""
    with ClaimingConsumer(valkey.url, work=given_a_batch(client)) as claiming:
        (message,) = claiming.take(1)
        run = unacked.Unacked.run

        def unheard(*arguments: Any) -> None:
            run(*arguments)
            raise redis.ConnectionError

        monkeypatch.setattr(unacked.Unacked, "run", unheard)
        assert not message.requeue_free([BEGUN, WAITING, WAITING])
        monkeypatch.setattr(unacked.Unacked, "run", run)
        assert message.requeue_free([BEGUN, WAITING, WAITING])
        claiming.take(3)
        assert [each.payload[0][0] for each in claiming.messages[1:]] == [["b"], ["c"]]
        claiming.acknowledge()
    assert is_over(client)


@pytest.mark.parametrize("by", ["its own worker", "a worker that takes it for dead"])
def test_a_batch_divided_while_it_is_requeued_is_in_the_queue_once(valkey, client, monkeypatch, by):
    """A claim is read and restored in two steps; a text must not be in the queue twice."""
    with ClaimingConsumer(valkey.url, work=given_a_batch(client)) as claiming:
        (message,) = claiming.take(1)
        store = claiming.channel.unacked
        client.zadd("unacked_owners", {claiming.owner.id: 5})
        run, divisions = unacked.Unacked.run, iter([[BEGUN, WAITING, BEGUN], [BEGUN, WAITING, WAITING]])

        def divide_first(unacked: Any, script: Any, *arguments: Any) -> Any:
            if script is lua_scripts.RESTORE and (states := next(divisions, None)):
                assert message.requeue_free(states)
            return run(unacked, script, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(unacked.Unacked, "run", divide_first)
            if by == "its own worker":
                store.restore([message.delivery_tag])
            else:
                assert store.reclaim(claiming.owner.id) == 1
        claiming.owner.end(message.delivery_tag)
        assert not client.hlen("unacked")
        found = [json.loads(raw) for raw in client.lrange("work", 0, -1)]
        texts = [json.loads(b64decode(each["body"]))[0][0] for each in found]
        assert sorted(texts) == [["a"], ["b"], ["c"]]
        assert [each["headers"].get("redelivered", False) for each in found] == [text == ["a"] for text in texts]


def test_a_batch_that_could_not_be_divided_at_its_end_is_redelivered(valkey, client, monkeypatch):
    """The command's connection is lost; the worker's own is not, and its other claims stay."""
    with ClaimingConsumer(valkey.url, work=given_a_batch(client)) as claiming:
        (message,) = claiming.take(1)
        publish(valkey.url, "has a time to wait for")
        claiming.take(2)
        states = bytes([DONE, WAITING, WAITING])
        message.sheet = SimpleNamespace(
            reported_states=lambda: states, all_states=states, parts=dict, stop=lambda: None
        )
        with monkeypatch.context() as patch:

            def away(*arguments: Any) -> None:
                raise redis.ConnectionError

            patch.setattr(unacked.Unacked, "run", away)
            with pytest.raises(redis.ConnectionError):
                message.ack()
        claiming.take(3)
        claiming.run_for(0.1)
        held, again = claiming.messages[1:]
        assert held.payload == "has a time to wait for"
        assert list(again.payload) == list(message.payload)
        assert marked(again)
        claiming.acknowledge([held, again])
        assert is_over(client)


def documented_acl() -> list[str]:
    """Return the ACL of docs/reliability.md."""
    text = (CHECKOUT / "docs" / "reliability.md").read_text(encoding="utf-8")
    return text.partition("`ACL SETUSER bus ")[2].partition("`")[0].replace("\\|", "|").split()  # it stands in a table


def test_the_documented_acl_suffices(valkey, client):
    """The worker claims, requeues, takes over, quarantines and renames with it."""
    client.execute_command("ACL", "SETUSER", "bus", "reset", *documented_acl(), "~work*")
    client.acl_log_reset()
    url = valkey.url.replace("redis+socket://", "redis+socket://bus:secret@")
    publish(url, *range(4), priority=3)
    with ClaimingConsumer(url, work=Knows(given_up=False)) as dead:
        dead.take(4)[0].ack()
        dead.messages[1].requeue()
        dead.channel.qos.restore_visible(interval=1)
    client.zadd("unacked_owners", {dead.owner.id: 5})
    client.lpush("work", "no message")
    client.set("work\x06\x169", "no list")
    with ClaimingConsumer(url) as claiming:
        assert claiming.channel.is_claiming
        claiming.owner.heartbeat.send_heartbeat(claiming.channel)
        claiming.take(3)
        client.delete("unacked_owners")
        client.lpush("unacked_owners", "no set")
        publish(url, "more")
        claiming.take(4)
        claiming.acknowledge()
        assert client.exists("signalbus.set_aside", "work\x06\x169.set_aside", "unacked_owners.set_aside") == 3
    # redis-py tells its own name where it may; before Redis 7 that is a part of `client`, which has one name for all.
    assert {entry["object"] for entry in client.acl_log()} <= {"client"}


class TestRefused:
    @pytest.mark.parametrize(
        ("command", "why"),
        [("client", "cannot tell of changed keys"), ("eval", "runs no scripts"), ("evalsha", "runs no scripts")],
    )
    def test_a_server_that_refuses_claims_is_consumed_as_kombu_does(self, valkey, client, caplog, command, why):
        """The log says why."""
        commands = ["+@all", f"-{command}"]
        client.acl_setuser("narrow", enabled=True, passwords=["+pw"], commands=commands, keys="*", channels="*")
        url = valkey.url.replace("redis+socket://", "redis+socket://narrow:pw@")
        publish(url, "a")
        with ClaimingConsumer(url) as claiming:
            claiming.take(1)
            assert not claiming.channel.is_claiming
            claiming.messages[0].ack()
            assert is_over(client)
        assert "as kombu does" in caplog.text
        assert why in caplog.text
