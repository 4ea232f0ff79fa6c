"""The carriers of a request's ids, of plain functions, of structlog and of OpenTelemetry."""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import Any

import pytest
import structlog
from asgiref.sync import iscoroutinefunction
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject
from opentelemetry import baggage
from opentelemetry import context as trace_context

from signalbus import Signal
from signalbus.carriers import (
    Baggage,
    RequestId,
    RequestMiddleware,
    StructlogContext,
    UserId,
    as_request,
    carried,
    carrying,
    request_id,
    user_id,
)
from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.testing import captured

GIVEN = "0193-7c1e"
tenant_of_thread: list[str | None] = [None]


def tenant() -> str | None:
    """Return the tenant that the sender works for."""
    return tenant_of_thread[0]


@pytest.fixture
def seen():
    """What a receiver saw."""
    return []


@pytest.fixture
def signal(seen):
    """A signal whose receiver notes the ids, and sends on at the first time."""
    signal = Signal("tests.requested")

    def note(sender, last=False, **kwargs):
        seen.append((request_id(), user_id(), carried("tenant")))
        if not last:
            signal.send(None, last=True)

    signal.connect(note, weak=False, dispatch_uid="note")
    return signal


def request(user: Any = None, **headers: str) -> HttpRequest:
    """Make a request."""
    made = RequestFactory().get("/", headers=headers)
    if user is not None:
        made.user = user
    return made


def answer(signal: Signal, made: HttpRequest) -> None:
    """Let a sync view send."""

    def view(request: HttpRequest) -> HttpResponse:
        signal.send(None)
        return HttpResponse()

    response = RequestMiddleware(view)(made)
    assert isinstance(response, HttpResponse)
    assert (request_id(), user_id()) == (None, None)


@pytest.mark.django_db
def test_a_receiver_knows_the_request_and_its_user(settings, signal, seen):
    """So do the receivers of what it sends; afterwards both are gone."""
    settings.SIGNALBUS = {"CARRY": ["signalbus.carriers.RequestId", UserId]}
    with captured() as sent:
        answer(signal, request(User(pk=7), **{"X-Request-ID": GIVEN}))
        assert sent[0].context == {"request_id": GIVEN, "user_id": 7}
        sent.deliver_all()

    assert seen == [(GIVEN, 7, None), (GIVEN, 7, None)]
    assert (request_id(), user_id()) == (None, None)


@pytest.mark.parametrize("header", ["", "a b", "x" * 101, "é", "<script>"])
def test_a_request_without_a_plain_id_gets_a_new_one(header: str):
    """The header is any text that a client sends."""
    found: list[str | None] = []
    middleware = RequestMiddleware(lambda request: found.append(request_id()))

    for _ in range(2):
        middleware(request(**({"X-Request-ID": header} if header else {})))

    assert found[0] != found[1]
    assert all(uuid.UUID(hex=each) for each in found)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (AnonymousUser(), None),
        (None, None),
        (User(pk=7), 7),
        (SimpleLazyObject(lambda: User(pk=7)), 7),
        (type("Member", (), {"pk": uuid.UUID(int=7)})(), str(uuid.UUID(int=7))),
    ],
)
def test_the_users_key_is_carried(user: Any, expected: object):
    """A visitor has none; a UUID travels as its text."""
    found: list[object] = []
    RequestMiddleware(lambda request: found.append(UserId().capture()))(request(user))

    assert found == [expected]


def test_an_async_view_sends_with_its_request(settings, signal):
    """asend() looks the user up in a thread; send() carries a user that has been loaded, and makes no query."""
    settings.SIGNALBUS = {"CARRY": [RequestId, UserId]}
    queries: list[int] = []

    def look_up() -> User:
        queries.append(1)
        return User(pk=7)

    async def view(request: HttpRequest) -> HttpResponse:
        signal.send(None)
        request._acached_user = User(pk=8)  # type: ignore[attr-defined]  # as request.auser() does
        signal.send(None)
        await signal.asend(None)
        assert not queries
        del request._acached_user  # type: ignore[attr-defined]
        await signal.asend(None)
        return HttpResponse()

    middleware: Any = RequestMiddleware(view)
    assert iscoroutinefunction(middleware)
    with captured() as sent:
        asyncio.run(middleware(request(SimpleLazyObject(look_up), **{"X-Request-ID": GIVEN})))

    assert [message.context.get("user_id") for message in sent] == [None, 8, 8, 7]
    assert {message.context["request_id"] for message in sent} == {GIVEN}


def test_work_without_a_request_may_name_one(settings, signal):
    """A command or a periodic task sends without ids, unless it says which."""
    settings.SIGNALBUS = {"CARRY": [RequestId, UserId]}
    with captured() as sent:
        signal.send(None)
        with as_request("nightly-42", user_id=3):
            signal.send_many(None, [{}, {}])
        with as_request():
            signal.send(None)

    assert [dict(message.context) for message in sent[:3]] == [{}, *[{"request_id": "nightly-42", "user_id": 3}] * 2]
    assert uuid.UUID(hex=sent[3].context["request_id"])


@pytest.mark.django_db
def test_a_plain_function_is_a_carrier(settings, signal, seen):
    """Its value is asked for by its name, and is passed on by what a receiver sends."""
    settings.SIGNALBUS = {"CARRY": [f"{__name__}.tenant"]}
    with captured() as sent:
        tenant_of_thread[0] = "acme"
        signal.send(None)
        tenant_of_thread[0] = None
        assert sent[0].context == {"tenant": "acme"}
        sent.deliver_all()

    assert [each[2] for each in seen] == ["acme", "acme"]
    assert carried("tenant") is None


def test_a_function_without_a_name_is_no_carrier(settings):
    """Messages that wait know the name."""
    settings.SIGNALBUS = {"CARRY": [lambda: 1]}
    with pytest.raises(ConfigurationError, match="define it with def"):
        carrying.carriers()


def test_a_function_must_return_json(settings, signal):
    """As the other carriers."""
    tenant_of_thread[0] = object()  # type: ignore[call-overload]
    settings.SIGNALBUS = {"CARRY": [tenant]}
    try:
        with captured(), pytest.raises(PayloadError, match=r"SIGNALBUS\[\"CARRY\"\] 'tenant'"):
            signal.send(None)
    finally:
        tenant_of_thread[0] = None


def test_structlogs_variables_are_bound_around_the_receiver():
    """What is not JSON is bound as its text; afterwards the worker's own are back."""
    carrier = StructlogContext()
    assert carrier.capture() is None
    with structlog.contextvars.bound_contextvars(request=GIVEN, peer=uuid.UUID(int=7), pair=(1,), ratio=float("nan")):
        value = carrier.capture()
    assert value == {"request": GIVEN, "peer": str(uuid.UUID(int=7)), "pair": "(1,)", "ratio": "nan"}
    with structlog.contextvars.bound_contextvars(worker=1, request="own"):
        with carrier.restore(value):
            assert structlog.contextvars.get_contextvars() == {"worker": 1, **value}
        assert structlog.contextvars.get_contextvars() == {"worker": 1, "request": "own"}


def test_the_baggage_is_attached_around_the_receiver():
    """A cascade carries it on."""
    carrier = Baggage()
    assert carrier.capture() is None
    token = trace_context.attach(baggage.set_baggage("tenant", "acme"))
    value = carrier.capture()
    trace_context.detach(token)
    assert value == {"tenant": "acme"}
    with carrier.restore(value):
        assert baggage.get_baggage("tenant") == "acme"
        assert carrier.capture() == value
    assert baggage.get_baggage("tenant") is None


@pytest.mark.parametrize(
    ("carrier", "module", "library"),
    [
        (StructlogContext, "structlog.contextvars", "structlog"),
        (Baggage, "opentelemetry.baggage", "opentelemetry-api"),
    ],
)
def test_a_library_that_is_missing_is_named(monkeypatch, carrier: type, module: str, library: str):
    """The checks tell of it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=f"needs {library}: install it"):
        carrier()
