"""The parts of Django's signals that the library overrides and reads are unchanged."""

from __future__ import annotations

import gc
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.utils.functional import SimpleLazyObject

from signalbus.compat.django_internals import HookedSignal, key_of, share_a_sender, wrapped_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from signalbus.compat.django_internals import Here, Key


class Mine:
    """A sender."""


class Another:
    """Another sender."""


def function(**kwargs: object) -> str:
    """Receive."""
    return "function"


def named(name: str, **kwargs: object) -> str:
    """Receive, and tell a name."""
    return name


async def coroutine(**kwargs: object) -> str:
    """Receive."""
    return "coroutine"


class Holder:
    """Has a method that receives."""

    def method(self, **kwargs: object) -> None:
        """Receive."""


HOLDER = Holder()
FORMS: dict[str, Callable[[HookedSignal], list[Any]]] = {
    "send": lambda signal: signal.send(Mine),
    "send_robust": lambda signal: signal.send_robust(Mine),
    "asend": lambda signal: async_to_sync(signal.asend)(Mine),
    "asend_robust": lambda signal: async_to_sync(signal.asend_robust)(Mine),
}


@pytest.mark.parametrize("sender", [None, Mine, HOLDER.method])
@pytest.mark.parametrize("uid", [None, "", "uid"])
@pytest.mark.parametrize("receiver", [function, coroutine, HOLDER.method])
def test_a_receivers_entry_begins_with_its_key(receiver, sender, uid):
    """The entry has the key, a reference to the receiver, and whether it is async."""
    signal = HookedSignal()
    signal.connect(receiver, sender=sender, dispatch_uid=uid)
    ((key, reference, *_, is_async),) = signal.receivers
    assert key == key_of(receiver, sender, uid)
    assert reference() == receiver
    assert is_async is (receiver is coroutine)


@pytest.mark.parametrize("sender", [None, Mine])
def test_the_receivers_of_a_sender_are_those_that_django_calls(sender):
    """They are the receivers of this sender and of any sender."""
    signal = HookedSignal()
    listeners = {"any": None, "mine": Mine, "another": Another}
    for name, heard in listeners.items():
        signal.connect(partial(named, name), sender=heard, weak=False, dispatch_uid=name)
    hearing = [name for _entry, name in signal._receivers_of(sender, lambda key: key[0])]
    assert hearing == [response for _receiver, response in signal.send(sender)]


@pytest.mark.parametrize(
    ("one", "other", "together"), [(Mine, Mine, True), (None, Mine, True), (Mine, None, True), (Mine, Another, False)]
)
def test_receivers_are_grouped_by_sender(one, other, together):
    """Receivers of any sender belong to each group."""
    assert share_a_sender(key_of(function, one, None), key_of(coroutine, other, None)) is together


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_send_calls_only_the_chosen_receivers(form):
    """No form calls a receiver that was not chosen."""

    class Chosen(HookedSignal):
        def _here(self, sender: object) -> Here:
            assert sender is Mine
            return [function], [coroutine]

    signal = Chosen()
    signal.connect(HOLDER.method)
    assert FORMS[form](signal) == [(function, "function"), (coroutine, "coroutine")]


@pytest.mark.parametrize("form", FORMS)
def test_without_a_choice_all_connected_receivers_are_called(form):
    """This is what Django does."""
    signal = HookedSignal()
    signal.connect(function)
    signal.connect(coroutine, sender=Mine)
    signal.connect(HOLDER.method, sender=Another)
    assert FORMS[form](signal) == [(function, "function"), (coroutine, "coroutine")]


class DeathRecorder(HookedSignal):
    """A signal that records the receivers that were garbage-collected."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.noted: list[set[Key]] = []

    def _on_dropped(self, keys: set[Key]) -> None:
        self.noted.append(keys)


@pytest.mark.parametrize(
    "notice",
    [
        lambda signal: signal.connect(function),
        lambda signal: signal.disconnect(function),
        lambda signal: signal.send(None),
        lambda signal: signal._drop_collected(),
        lambda signal: signal._receivers_of(None, repr),
    ],
    ids=["connect", "disconnect", "send", "by name", "look-up"],
)
def test_a_collected_receiver_is_reported_once(notice):
    """A collected receiver is reported at the next connect, disconnect or send."""
    signal, mortal = DeathRecorder(), Holder()
    signal.connect(mortal.method)
    (entry,) = signal.receivers
    known = [signal.has_collected_receivers]
    del mortal
    gc.collect()
    known.append(signal.has_collected_receivers)
    for _ in range(2):
        notice(signal)
    assert signal.noted == [{entry[0]}]
    assert [*known, signal.has_collected_receivers] == [False, True, False]


@pytest.mark.parametrize("form", ["send_robust", "asend_robust"])
def test_a_robust_form_logs_for_a_receiver_without_a_name(form, caplog):
    """The log line has Django's words, Django's logger and the error."""
    error = ValueError("no luck")

    class Nameless:
        def __call__(self, **kwargs: object) -> None:
            raise error

    signal, nameless = HookedSignal(), Nameless()
    signal.connect(nameless)
    with caplog.at_level(logging.ERROR, "django.dispatch"):
        assert FORMS[form](signal) == [(nameless, error)]
    (record,) = caplog.records
    assert record.getMessage().endswith("Nameless in Signal.send_robust() (no luck)")
    assert record.exc_info
    assert record.exc_info[1] is error


def test_a_lazy_object_contains_the_object_it_wraps():
    """The object is made once, whether or not it was read before."""
    made: list[Holder] = []

    def make() -> Holder:
        made.append(Holder())
        return made[-1]

    lazy = SimpleLazyObject(make)
    assert wrapped_in(lazy) is wrapped_in(lazy) is made[0]
    assert len(made) == 1
