"""A signalbus Signal is a Django Signal: each test here holds for both, with inline receivers for ours.

The list follows what Django's documentation promises, and what its own tests of dispatch ask for.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from functools import partial
from typing import Any

import pytest
from django.dispatch import Signal as DjangoSignal
from django.dispatch import receiver as django_receiver

from signalbus import Signal, receiver


class Channel:
    """A signal, Django's or ours, whose receivers run in this process."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.ours = kind == "ours"
        self.signal: Any = Signal("tests.channel", **options) if self.ours else DjangoSignal(**options)
        self.inline = {"inline": True} if self.ours else {}

    def connect(self, function: Any, **options: Any) -> None:
        """Connect a receiver that runs here."""
        self.signal.connect(function, **options, **self.inline)


@pytest.fixture(params=["django", "ours"])
def channel(request):
    """Give a signal without caching."""
    return Channel(request.param)


@pytest.fixture(params=["django", "ours"])
def caching(request):
    """Give a signal that remembers the receivers of each sender."""
    return Channel(request.param, use_caching=True)


class Listener:
    """A receiver that is an object, and one that is its method."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def __call__(self, value: Any, **kwargs: Any) -> Any:
        self.heard.append(value)
        return value

    def method(self, value: Any, **kwargs: Any) -> Any:
        return ("method", value)


class Shop:
    """A sender."""


class Bakery:
    """Another sender."""


def echo(value: Any = None, **kwargs: Any) -> Any:
    """Respond with the payload."""
    return value


def receiver_that_raises(**kwargs: Any) -> None:
    """Raise."""
    raise ValueError("this")


async def async_echo(value: Any = None, **kwargs: Any) -> Any:
    """Respond with the payload, from a coroutine."""
    await asyncio.sleep(0)
    return ("async", value)


async def async_receiver_that_raises(**kwargs: Any) -> None:
    """Raise in a coroutine."""
    raise ValueError("that")


class TestConnecting:
    def test_a_receiver_without_a_sender_gets_all(self, channel):
        """It is called for every sender."""
        channel.connect(echo)
        assert channel.signal.send(Shop, value=1) == [(echo, 1)]
        assert channel.signal.send(None, value=2) == [(echo, 2)]

    def test_a_receiver_of_one_sender_gets_no_other(self, channel):
        """The sender is compared by identity."""
        channel.connect(echo, sender=Shop)
        assert channel.signal.send(Shop, value=1) == [(echo, 1)]
        assert channel.signal.send(Bakery, value=1) == []
        assert channel.signal.send(None, value=1) == []

    def test_a_receiver_of_a_sender_and_of_any_is_called_twice(self, channel):
        """Two connections are two calls."""
        channel.connect(echo, sender=Shop)
        channel.connect(echo)
        assert channel.signal.send(Shop, value=1) == [(echo, 1), (echo, 1)]

    def test_connecting_again_changes_nothing(self, channel):
        """The same receiver for the same sender is connected once."""
        listener = Listener()
        for _ in range(3):
            channel.connect(listener)
        assert channel.signal.send(Shop, value=1) == [(listener, 1)]
        assert len(channel.signal.receivers) == 1

    def test_the_second_of_a_uid_is_ignored(self, channel):
        """A dispatch_uid is connected once, whichever receiver has it."""
        channel.connect(echo, dispatch_uid="one")
        channel.connect(receiver_that_raises, dispatch_uid="one")
        assert channel.signal.send(Shop, value=1) == [(echo, 1)]

    def test_a_uid_is_for_a_sender(self, channel):
        """The same dispatch_uid for another sender is another connection."""
        channel.connect(echo, sender=Shop, dispatch_uid="one")
        channel.connect(echo, sender=Bakery, dispatch_uid="one")
        assert len(channel.signal.receivers) == 2

    def test_receivers_run_in_the_order_of_their_connection(self, channel):
        """The first one connected is called first."""
        order: list[str] = []
        first, second = (partial(lambda name, **kwargs: order.append(name), name) for name in ("first", "second"))
        channel.connect(first)
        channel.connect(second)
        channel.signal.send(Shop)
        assert order == ["first", "second"]

    def test_a_bound_method_is_called(self, channel):
        """A bound method receives, as long as its object lives."""
        listener = Listener()
        channel.connect(listener.method)
        assert [response for _receiver, response in channel.signal.send(Shop, value=1)] == [("method", 1)]

    def test_a_receiver_gets_the_signal_and_the_sender(self, channel):
        """``signal`` and ``sender`` come as keywords beside the payload."""
        seen: dict[str, Any] = {}
        function = lambda **kwargs: seen.update(kwargs)  # noqa: E731 - it needs a name to live
        channel.connect(function)
        channel.signal.send(Shop, value=1)
        assert seen == {"signal": channel.signal, "sender": Shop, "value": 1}

    def test_the_decorators_connect(self, channel):
        """Both ``receiver`` decorators connect to both kinds of signal, and to lists, and return the function."""
        other = Channel("ours" if channel.ours else "django")

        @receiver([channel.signal, other.signal], inline=True, sender=Shop)
        def ours(value, **kwargs):
            return value

        @django_receiver([channel.signal], **channel.inline)
        def djangos(value, **kwargs):
            return value

        assert channel.signal.send(Shop, value=1) == [(ours, 1), (djangos, 1)]
        assert other.signal.send(Shop, value=1) == [(ours, 1)]
        assert other.signal.send(Bakery, value=1) == []


class TestDisconnecting:
    def test_disconnect_returns_whether_it_was_connected(self, channel):
        """`disconnect` returns True or False."""
        channel.connect(echo)
        assert channel.signal.disconnect(echo) is True
        assert channel.signal.disconnect(echo) is False
        assert channel.signal.send(Shop, value=1) == []

    def test_disconnect_by_uid(self, channel):
        """A dispatch_uid suffices."""
        channel.connect(echo, dispatch_uid="one")
        assert channel.signal.disconnect(echo) is False
        assert channel.signal.disconnect(dispatch_uid="one") is True
        assert not channel.signal.has_listeners()

    def test_disconnect_by_sender(self, channel):
        """A connection for a sender is disconnected for that sender."""
        channel.connect(echo, sender=Shop)
        assert channel.signal.disconnect(echo) is False
        assert channel.signal.disconnect(echo, sender=Shop) is True

    def test_a_receiver_may_disconnect_itself(self, channel):
        """The other receivers are still called."""
        ran = []

        class SelfDisconnecting:
            def __call__(self, signal, sender, **kwargs):
                ran.append(self)
                signal.disconnect(self, sender=sender)

        first, second = SelfDisconnecting(), SelfDisconnecting()
        channel.connect(first, sender=Shop)
        channel.connect(second, sender=Shop)
        channel.signal.send(Shop)
        assert ran == [first, second]
        assert channel.signal.receivers == []


class TestWeakReferences:
    def test_a_method_of_a_collected_object_is_not_called(self, channel):
        """A bound method does not keep its object alive."""
        listener = Listener()
        channel.connect(listener.method, sender=Shop)
        del listener
        gc.collect()
        assert channel.signal.send(Shop, value=1) == []
        assert not channel.signal.has_listeners(Shop)
        assert channel.signal.receivers == []

    def test_a_collected_closure_is_not_called(self, channel):
        """A signal does not keep the function alive."""
        channel.connect(lambda **kwargs: 1)
        gc.collect()
        assert channel.signal.send(Shop) == []

    def test_weak_false_keeps_the_receiver_alive(self, channel):
        """The signal has a strong reference."""
        channel.connect(lambda **kwargs: 1, weak=False)
        gc.collect()
        assert [response for _receiver, response in channel.signal.send(Shop)] == [1]

    def test_the_cache_keeps_no_sender_alive(self, caching):
        """Remembering a sender's receivers does not keep the sender."""

        class Popup:
            pass

        reference = weakref.ref(Popup)
        caching.connect(echo)
        caching.signal.send(Popup)
        del Popup
        gc.collect()
        assert reference() is None

    def test_the_cache_forgets_collected_receivers(self, caching):
        """A collected receiver is not called from the cache."""
        listener = Listener()
        caching.connect(listener)
        caching.signal.send(Shop, value=1)
        del listener
        gc.collect()
        assert caching.signal.send(Shop, value=1) == []


class TestListeners:
    def test_has_listeners(self, channel):
        """The answer is right with and without a sender."""
        assert not channel.signal.has_listeners()
        channel.connect(echo, sender=Shop)
        assert channel.signal.has_listeners(Shop)
        assert not channel.signal.has_listeners(Bakery)
        assert not channel.signal.has_listeners()
        channel.signal.disconnect(echo, sender=Shop)
        assert not channel.signal.has_listeners(Shop)

    def test_the_cache_follows_changes(self, caching):
        """Connecting and disconnecting take effect at the next send."""
        assert caching.signal.send(Shop, value=1) == []
        caching.connect(echo)
        assert caching.signal.send(Shop, value=1) == [(echo, 1)]
        assert caching.signal.send(Shop, value=2) == [(echo, 2)]
        caching.signal.disconnect(echo)
        assert caching.signal.send(Shop, value=1) == []


class TestSending:
    def test_send_raises_the_first_error(self, channel):
        """Later receivers are not called."""
        listener = Listener()
        channel.connect(receiver_that_raises)
        channel.connect(listener)
        with pytest.raises(ValueError, match="this"):
            channel.signal.send(Shop, value=1)
        assert listener.heard == []

    def test_send_robust_returns_errors(self, channel, caplog):
        """The error, with its traceback, is the response, and all receivers are called."""
        channel.connect(receiver_that_raises)
        channel.connect(echo)
        (failed, error), succeeded = channel.signal.send_robust(Shop, value=1)
        assert failed is receiver_that_raises
        assert isinstance(error, ValueError)
        assert error.args == ("this",)
        assert error.__traceback__ is not None
        assert succeeded == (echo, 1)
        assert caplog.records[0].name == "django.dispatch"
        assert "receiver_that_raises" in caplog.text

    def test_async_receivers_of_a_sync_send(self, channel):
        """Coroutine functions are called after all others, whatever the order of connection."""
        channel.connect(async_echo)
        channel.connect(echo)
        assert channel.signal.send(Shop, value=1) == [(echo, 1), (async_echo, ("async", 1))]

    def test_async_receivers_of_a_robust_send(self, channel):
        """The errors of coroutine functions are responses too."""
        channel.connect(async_receiver_that_raises)
        channel.connect(echo)
        first, (_receiver, error) = channel.signal.send_robust(Shop, value=1)
        assert first == (echo, 1)
        assert isinstance(error, ValueError)

    @pytest.mark.parametrize("method", ["asend", "asend_robust"])
    def test_asend_calls_sync_and_async_receivers(self, channel, method):
        """Sync receivers are called first."""
        channel.connect(async_echo)
        channel.connect(echo)
        responses = asyncio.run(getattr(channel.signal, method)(Shop, value=1))
        assert responses == [(echo, 1), (async_echo, ("async", 1))]

    @pytest.mark.parametrize("method", ["asend", "asend_robust"])
    def test_asend_without_receivers(self, channel, method):
        """The async forms return an empty list."""
        assert asyncio.run(getattr(channel.signal, method)(Shop, value=1)) == []
        channel.connect(echo, sender=Bakery)
        assert asyncio.run(getattr(channel.signal, method)(Shop, value=1)) == []

    def test_asend_raises_errors(self, channel):
        """`asend` raises the error of a sync or async receiver."""
        channel.connect(async_receiver_that_raises)
        with pytest.raises(ValueError, match="that"):
            asyncio.run(channel.signal.asend(Shop))
        channel.connect(receiver_that_raises)
        with pytest.raises(ValueError, match=r"this|that"):
            asyncio.run(channel.signal.asend(Shop))

    def test_asend_robust_returns_errors(self, channel):
        """``asend_robust`` gives the errors of both kinds as responses."""
        channel.connect(receiver_that_raises)
        channel.connect(async_receiver_that_raises)
        responses = asyncio.run(channel.signal.asend_robust(Shop))
        assert [str(error) for _receiver, error in responses] == ["this", "that"]

    def test_debug_refuses_receivers_without_keywords(self, channel, settings):
        """With DEBUG, ``connect`` raises, and connects nothing."""
        settings.DEBUG = True
        with pytest.raises(ValueError, match="must accept keyword arguments"):
            channel.connect(no_keywords)
        with pytest.raises(TypeError, match="must be callable"):
            channel.connect(object())
        assert not channel.signal.has_listeners()


def no_keywords(sender: object) -> None:
    """Take no keywords."""


class TestBeyondDjango:
    """Cases in which Django fails by accident, and signalbus does not."""

    def test_the_error_of_a_receiver_without_a_name_is_a_response(self):
        """An object or a partial has no name to log."""

        class Grumbler:
            def __call__(self, **kwargs):
                raise ValueError("grumble")

        grumbler, signal = Grumbler(), Signal("tests.grumbling")
        signal.connect(grumbler, inline=True)
        ((receiver_, error),) = signal.send_robust(Shop)
        assert receiver_ is grumbler
        assert str(error) == "grumble"

    @pytest.mark.parametrize("sender", [None, "pricing"])
    def test_caching_accepts_senders_without_weak_references(self, sender):
        """These are None, texts, and a check for listeners without a sender."""
        signal = Signal("tests.cached", use_caching=True)
        assert not signal.has_listeners()
        signal.connect(echo, inline=True)
        signal.connect(async_echo, inline=True)
        assert signal.send(sender, value=1) == [(echo, 1), (async_echo, ("async", 1))]
        assert asyncio.run(signal.asend(sender, value=1)) == [(echo, 1), (async_echo, ("async", 1))]
        assert signal.has_listeners(sender)
