"""The private parts of kombu's Redis transport and of redis-py that the library uses are unchanged."""

from __future__ import annotations

import inspect
import json
import socket
from types import SimpleNamespace
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.scheduling import round_robin_cycle
from redis import Connection as RedisConnection
from redis import SSLConnection, UnixDomainSocketConnection
from redis._parsers import _HiredisParser, _RESP3Parser

from signalbus.compat import redis_internals as compat
from signalbus.transport import channel as channel_module
from signalbus.transport import kombu_transport
from signalbus.transport.broker_claims import Work
from signalbus.transport.claimed_message import ClaimedMessage
from signalbus.transport.poller import Poller
from signalbus.transport.qos import QoS


def channel(**attributes: Any) -> Any:
    """Return a channel of kombu that is not connected."""
    made = object.__new__(stock.Channel)
    vars(made).update(_queue_cycle=round_robin_cycle(), _active_queues=[], active_fanout_queues=set())
    vars(made).update(attributes)
    return made


@pytest.mark.parametrize(
    ("ours", "kombus", "replaced"),
    [
        (channel_module.ClaimingMixin, stock.SentinelChannel, "Message QoS _size basic_cancel basic_consume close"),
        (QoS, stock.QoS, "ack append reject restore_by_tag restore_unacked restore_visible"),
        (ClaimedMessage, virtual.Message, "ack decode reject"),
        (Poller, compat.LoopPoller, "close"),
        (kombu_transport.TransportMixin, stock.SentinelTransport, "register_with_event_loop"),
    ],
)
def test_no_attribute_of_kombu_is_replaced_by_accident(ours, kombus, replaced):
    """A new attribute of kombu may have the name of one of ours."""
    named = {name for name in vars(ours) if not name.startswith("__")}
    assert {name for name in named if hasattr(kombus, name)} == set(replaced.split())


class TestTransports:
    @pytest.mark.parametrize("url", ["redis://", "rediss://", "redis+socket:///tmp/x.sock"])
    def test_the_transport_stays_replaced_after_a_fail_over(self, url):
        """kombu forgets its first configuration when it switches to another address."""
        connection = Connection(url)
        assert kombu_transport.can_claim(connection)
        kombu_transport.claim(connection, work := Work())
        assert isinstance(connection.transport, kombu_transport.Transport)
        assert connection.transport.work is work
        connection.switch("redis://elsewhere")
        assert isinstance(connection.transport, kombu_transport.Transport)

    def test_the_sentinel_transport_is_replaced(self):
        """It uses kombu's own channel for Sentinel."""
        connection = Connection("sentinel://localhost")
        kombu_transport.claim(connection, Work())
        assert isinstance(connection.transport, kombu_transport.SentinelTransport)
        assert issubclass(connection.transport.Channel, stock.SentinelChannel)

    def test_a_primary_is_one_server_whichever_sentinel_answers(self):
        """A worker must not become another one after each failed attempt to connect."""
        connection = Connection("sentinel://one;sentinel://two", transport_options={"master_name": "m"})
        asked, before = connection.hostname, compat.server_of(connection)
        connection.maybe_switch_next()
        assert (connection.hostname, compat.server_of(connection)) == ("two" if asked == "one" else "one", before)
        another = Connection("sentinel://one;sentinel://two", transport_options={"master_name": "another"})
        assert compat.server_of(another) != before

    def test_another_address_is_another_server(self):
        """Without Sentinel, another address or virtual host is another server."""
        connection = Connection("redis://one;redis://two")
        before = compat.server_of(connection)
        connection.maybe_switch_next()
        assert compat.server_of(connection) != before
        assert compat.server_of(Connection("redis://one/1")) != compat.server_of(Connection("redis://one/2"))

    @pytest.mark.parametrize("url", ["memory://", "amqp://"])
    def test_other_transports_are_not_replaced(self, url):
        """Nothing changes for them."""
        connection = Connection(url)
        assert not kombu_transport.can_claim(connection)
        before = connection.get_transport_cls()
        kombu_transport.claim(connection, Work())
        assert connection.get_transport_cls() is before

    def test_a_subclass_of_kombus_transport_is_not_replaced(self):
        """The behaviour of a subclass is not known."""

        class Variant(stock.Transport):
            pass

        assert not kombu_transport.can_claim(Connection("redis://", transport=Variant))

    def test_kombus_poller_does_not_pop_for_a_claiming_channel(self, monkeypatch):
        """kombu's poller uses the method that the library replaces."""
        popped = []
        monkeypatch.setattr(stock.MultiChannelPoller, "_register_BRPOP", lambda self, channel: popped.append(channel))
        poller = compat.LoopPoller()
        consuming: dict[str, Any] = {"active_queues": ["q"], "active_fanout_queues": []}
        consuming["qos"] = SimpleNamespace(can_consume=lambda: True)
        claims, pops = (SimpleNamespace(**consuming, is_claiming=claims) for claims in (True, False))
        poller._channels = [claims, pops]  # type: ignore[attr-defined]
        poller.on_poll_start()
        assert popped == [pops]


class TestQueues:
    def test_lists_are_ordered_by_priority_and_then_in_turn(self):
        """kombu's BRPOP asks for them in the same order."""
        made = channel(_active_queues=["a", "b"], global_keyprefix="p:", priority_steps=[0, 5])
        made._update_queue_cycle()
        urgent = [("p:a", "a"), ("p:b", "b")]
        later = [("p:a\x06\x165", "a"), ("p:b\x06\x165", "b")]
        assert compat.queue_keys(made) == urgent + later
        compat.rotate(made, "a")
        assert compat.queue_keys(made)[:2] == urgent[::-1]
        assert compat.lists_of(made, "a") == ["p:a", "p:a\x06\x165"]

    def test_a_message_belongs_in_the_list_of_its_priority(self):
        """A message without a priority belongs in the first list."""
        made = channel()
        assert compat.list_of(made, "a", {"properties": {"priority": 4}}) == "a\x06\x163"
        assert compat.list_of(made, "a", {"properties": {}}) == "a"


def empty_account() -> Any:
    """Return kombu's account of unacknowledged messages, with room for two."""
    channel: Any = SimpleNamespace(do_restore=False)
    return virtual.QoS(channel, 2)


class TestUnacknowledged:
    def test_messages_are_counted_until_they_are_acknowledged(self):
        """kombu counts them for the prefetch count."""
        qos = empty_account()
        for tag in ("sb1:x:1", "theirs"):
            compat.add_unacked(qos, tag, object())
        assert compat.unacked_count(qos) == 2
        assert not qos.can_consume()
        compat.remove_unacked(qos, "theirs")
        assert qos.can_consume()
        assert compat.is_unacked(qos, "sb1:x:1")
        assert not compat.is_unacked(qos, "theirs")
        compat.remove_all_unacked(qos, lambda tag: tag.startswith("sb1"))
        assert compat.unacked_count(qos) == 0

    def test_a_replaced_limit_on_the_instance_is_used(self):
        """Celery's worker_disable_prefetch replaces the method on the instance."""
        qos = empty_account()
        assert not compat.is_limited_by_others(qos)
        qos.can_consume = lambda: False
        assert compat.is_limited_by_others(qos)


class TestMessages:
    def test_a_message_has_a_tag_and_its_queue(self):
        """kombu's consumers look for both."""
        raw = json.dumps({"headers": {}, "properties": {}, "body": ""}).encode()
        found = compat.delivered(raw, "q", "tag")["properties"]
        assert found == {"delivery_tag": "tag", "delivery_info": {"exchange": "", "routing_key": "q"}}

    def test_the_senders_exchange_and_routing_key_are_kept(self):
        """A requeued message has the exchange and routing key that the sender wrote."""
        info = {"exchange": "e", "routing_key": "r"}
        raw = json.dumps({"headers": {}, "properties": {"delivery_info": info}, "body": ""}).encode()
        assert compat.delivered(raw, "q", "tag")["properties"]["delivery_info"] == info

    def test_kombus_own_tags_are_read_as_kombu_reads_them(self):
        """A header may have a date."""
        assert compat.parsed(b'{"__type__": "uuid", "__value__": {"hex": "' + b"0" * 32 + b'"}}').int == 0


class TestRedisPy:
    @pytest.mark.parametrize("parser", [_RESP3Parser, _HiredisParser])
    def test_parsers_report_changed_keys(self, parser):
        """They do with and without hiredis."""
        assert callable(parser.set_invalidation_push_handler)

    @pytest.mark.parametrize("connection", [SSLConnection, UnixDomainSocketConnection])
    def test_a_push_can_be_read_alone(self, connection):
        """A worker that could not read it would wait for a reply that does not come."""
        assert "push_request" in inspect.signature(connection.read_response).parameters
        assert "check_health" in inspect.signature(connection.send_packed_command).parameters


@pytest.mark.parametrize("forget", [True, False])
def test_unsent_data_of_a_broken_connection_is_dropped(forget):
    """The other end sees a broken connection, not an orderly end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection: Any = RedisConnection(host="127.0.0.1", port=server.getsockname()[1])
        connection._sock = socket.create_connection(server.getsockname())
        other, _ = server.accept()
        with other:
            connection._sock.send(b"claim")
            compat.close(connection, forget=forget)
            other.settimeout(5)
            if forget:
                with pytest.raises(ConnectionResetError):
                    while other.recv(10):
                        pass
            else:
                assert (other.recv(10), other.recv(10)) == (b"claim", b"")
