"""The claims of a process, and the state that a worker reports to them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps
from celery.worker import state
from kombu import Connection

from signalbus import Signal, celery, conf
from signalbus.receiving.worker import capacity
from signalbus.transport import broker_claims
from signalbus.transport.kombu_transport import Transport
from signalbus.wire.message import Message, from_body, to_body, uuid7


@pytest.fixture
def owner() -> broker_claims.Owner:
    """An owner with three claims, two of them in a batch."""
    made = broker_claims.Owner()
    made.claimed = dict.fromkeys(["a", "b", "c"], "q")
    made.batches["sb1g:1"] = ["a", "b"]
    return made


class TestOwner:
    def test_the_end_of_a_batch_ends_its_claims(self, owner):
        """It ends them once."""
        assert owner.end("sb1g:1") == ["a", "b"]
        assert owner.end("sb1g:1") == []
        assert owner.end("c") == ["c"]
        assert not owner.claimed
        assert not owner.batches

    def test_batches_and_single_claims_are_counted_as_deliveries(self, owner):
        """The consumer counts in the same way."""
        assert owner.deliveries() == {"sb1g:1", "c"}
        assert owner.claims_of(["sb1g:1"]) == {"a", "b"}

    def test_each_number_is_used_once(self, owner):
        """A number is not given again, whether it was used or not."""
        assert (owner.reserve(3), owner.reserve(1)) == ((1, 3), (4, 1))
        assert owner.tag(4) == f"sb1:{owner.id}:4"
        assert broker_claims.is_ours(owner.tag(4))
        assert not broker_claims.is_ours("4")

    def test_a_process_has_one_name_for_each_server(self):
        """A forked child has another name."""
        assert broker_claims.owner_of("here") is broker_claims.owner_of("here")
        assert broker_claims.owner_of("here") is not broker_claims.owner_of("there")


class TestWorkload:
    def make(self, blueprint: int = bootsteps.RUN, **pool: Any) -> capacity.WorkersWork:  # type: ignore[attr-defined]
        """Return what a worker with such a pool tells."""
        worker = SimpleNamespace(
            max_concurrency=None,
            pool=SimpleNamespace(num_processes=4, **pool),
            blueprint=SimpleNamespace(state=blueprint),
        )
        return capacity.WorkersWork(worker)

    def test_free_processes_of_the_pool_are_counted(self, monkeypatch):
        """A reserved request takes one."""
        monkeypatch.setattr(state, "reserved_requests", {1, 2, 3})
        assert self.make().free() == 1

    def test_a_running_request_counts_after_a_reconnect(self, monkeypatch):
        """Celery before 5.7 forgets then that it is reserved."""
        monkeypatch.setattr(state, "reserved_requests", {3})
        monkeypatch.setattr(state, "active_requests", {1, 2, 3})
        assert self.make().free() == 1

    def test_requests_of_a_thread_pool_are_kept_until_the_pool_stops(self):
        """The threads of the pool have a queue of their own."""
        assert self.make().given_up({"a"}) == set()
        assert self.make(blueprint=bootsteps.CLOSE).given_up({"a"}) == {"a"}  # type: ignore[attr-defined]

    @pytest.mark.skipif(not hasattr(state, "scheduled_requests"), reason="new in Celery 5.7")
    def test_waiting_tasks_are_requeued_before_celery_forgets_them(self, monkeypatch):
        """They are requeued later if the broker was away; a task that has begun is not."""
        work = self.make()
        wait = [SimpleNamespace(message=SimpleNamespace(delivery_tag=tag)) for tag in "abc"]
        monkeypatch.setattr(state, "scheduled_requests", wait)
        assert work.given_up({"a", "b", "other"}) == {"a", "b"}
        monkeypatch.setattr(state, "scheduled_requests", [])
        monkeypatch.setattr(capacity, "running", {"b"}.copy)
        assert work.given_up({"a", "b", "other"}) == {"a"}

    def test_only_waiting_tasks_are_requeued_at_a_shutdown(self, monkeypatch):
        """A task that has ended, has begun, or begins meanwhile is not."""
        known, begun = {"ends", "begins", "runs", "waits"}, {"runs"}

        def hear(pool, seconds):
            known.discard("ends")
            begun.add("begins")

        monkeypatch.setattr(capacity, "requests", known.copy)
        monkeypatch.setattr(capacity, "running", begun.copy)
        monkeypatch.setattr(capacity, "is_prefork", lambda pool: True)
        monkeypatch.setattr(capacity, "wait_until_accepted", hear)
        assert self.make().given_up(known.copy()) == {"waits"}

    def test_a_text_for_some_of_its_recipients(self):
        """The text is signed again; a text that is none, or of other recipients, is refused."""
        made = Message(
            id=uuid7(), signal="s", payload="{}", root=uuid7(), sent_at=datetime.now(UTC), recipients=("a", "b", "c"),
            recorded=True, ordering_key="k", trace={"x": "y"},
        )  # fmt: skip
        text = conf.signer().sign(to_body(made))
        part = self.make().for_some(text, [2, 0], 3)
        assert part is not None
        assert from_body(conf.signer().verify(part)) == replace(made, recipients=("c", "a"))
        assert self.make().for_some(text, [1], 2) is None
        assert self.make().for_some("garbage", [1], 3) is None

    def test_a_text_for_some_of_the_receivers_that_are_looked_up(self):
        """The receivers of an open message are named in the order in which every process finds them."""
        signal = Signal(name="tests.open_to_some", durable=False, open=True)
        for uid in ("a", "b", "c"):
            signal.connect(lambda **kwargs: None, dispatch_uid=uid, weak=False)
        made = Message(id=uuid7(), signal=signal.name, payload="{}", root=uuid7(), sent_at=datetime.now(UTC))
        text = conf.signer().sign(to_body(made))
        part = self.make().for_some(text, [2, 0], 3)
        assert part is not None
        assert from_body(conf.signer().verify(part)) == replace(made, recipients=("c", "a"))
        assert self.make().for_some(text, [1], 2) is None


class TestClaimingWorkers:
    def make(self, url: str, hub: object) -> Any:
        """Return a worker, as far as it is needed here."""
        app = SimpleNamespace(connection_for_read=lambda heartbeat=None: Connection(url))
        consumer = SimpleNamespace(hub=hub, connection_for_read=None, ensure_connected=lambda connection: connection)
        return SimpleNamespace(app=app, consumer=consumer, pool=SimpleNamespace(flush=None), pool_cls="gevent")

    def test_a_worker_on_redis_with_an_event_loop_claims(self):
        """Each of its connections claims, also after a reconnect."""
        worker = self.make("redis://", object())
        capacity.claim(worker)
        for _ in range(2):
            assert isinstance(worker.consumer.connection_for_read().transport, Transport)

    def test_a_worker_without_an_event_loop_says_that_it_does_not_claim(self, caplog):
        """gevent and eventlet have no event loop."""
        worker = self.make("redis://", None)
        with caplog.at_level("INFO", "signalbus"):
            capacity.claim(worker)
        assert worker.consumer.connection_for_read is None
        assert "gevent" in caplog.text

    def test_a_worker_on_another_broker_does_not_claim(self, caplog):
        """Such a worker logs nothing."""
        worker = self.make("amqp://", object())
        capacity.claim(worker)
        assert worker.consumer.connection_for_read is None
        assert not caplog.text


class TestSetting:
    @pytest.mark.parametrize(
        ("given", "app", "claim"),
        [(None, None, True), (None, "shop.celery:app", False), (True, "shop.celery:app", True), (False, None, False)],
    )
    def test_a_hosts_app_claims_only_with_the_setting(self, given, app, claim, settings):
        """Our own app claims by default."""
        settings.SIGNALBUS = {"CLAIM": given, "CELERY_APP": app}
        assert celery.claims() is claim
        assert conf.get().CLAIM is given
