"""Model names as senders are resolved or refused, and a send without a receiver is logged once."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_in

from signalbus import Signal, disconnect, receiver
from signalbus.checks import check_refused
from signalbus.connecting import senders
from signalbus.exceptions import ConfigurationError


def on_event(sender, **kwargs):
    """Receive."""


@pytest.fixture
def signal():
    """Make a signal."""
    return Signal("tests.senders")


class TestModelNames:
    """A text such as "auth.User" means the model, as in Django's model signals."""

    @pytest.mark.parametrize("name", ["auth.User", "auth.user"])
    @pytest.mark.parametrize("inline", [False, True])
    def test_name_is_resolved(self, signal, name, inline):
        """The receiver is connected for the model, with the id that the class would give it."""
        signal.connect(on_event, sender=name, inline=inline)
        assert signal.has_listeners(User)
        assert not signal.has_listeners(Group)
        assert [entry.id for entry in signal.entries()] == ([] if inline else [f"{__name__}.on_event[auth.User]"])
        assert signal.disconnect(on_event, sender=name)
        assert not signal.has_listeners(User)

    @pytest.mark.parametrize("name", ["auth.Usre", "auth.usre", "admisions.Cohort"])
    def test_name_of_no_model_is_refused(self, signal, name):
        """``connect`` raises, and the system check reports a swallowed error."""
        with pytest.raises(ConfigurationError, match=f"sender='{name}' names no model"):
            receiver(signal, sender=name)(on_event)
        (error,) = check_refused()
        assert name in error.msg

    def test_name_waits_for_its_model(self, signal, monkeypatch):
        """Before the models are loaded, the connection waits for the model."""
        waiting = []
        early = SimpleNamespace(models_ready=False, apps_ready=False, lazy_model_operation=lambda *a: waiting.append(a))
        monkeypatch.setattr(senders, "apps", early)
        signal.connect(on_event, sender="auth.User")
        assert not signal.has_listeners(User)
        ((function, key),) = waiting
        assert key == ("auth", "user")
        assert f"{__name__}.on_event" in function.__qualname__
        function(User)
        assert signal.has_listeners(User)

    def test_name_with_a_plain_signal_that_is_no_model_signal(self, restored_bridges):
        """Its bridge is connected for the model."""
        receiver(user_logged_in, sender="auth.User")(on_event)
        assert user_logged_in.has_listeners(User)
        assert disconnect(user_logged_in, on_event, sender="auth.User")


@pytest.mark.parametrize("text", ["nightly import", "nightly", "import.nightly", "a.b.c"])
@pytest.mark.parametrize("inline", [False, True])
def test_equal_texts_are_one_sender(signal, text, inline):
    """Another object with the same letters reaches the receiver, as in another process."""
    heard = []
    signal.connect(lambda **payload: heard.append(payload), sender=text, inline=True, weak=False)
    if not inline:
        signal.connect(on_event, sender="".join(list(text)))
    assert signal.has_listeners("".join(list(text)))
    signal.disconnect(on_event, sender="".join(list(text)))
    signal.send(sender="".join(list(text)))
    assert len(heard) == 1


class TestNoReceivers:
    """A send without a receiver, while receivers for other senders exist, is logged once at INFO."""

    @pytest.fixture(autouse=True)
    def at_info(self, caplog):
        caplog.set_level(logging.INFO, logger="signalbus")

    @pytest.mark.parametrize("sender", [Group, None, "nightly", on_event, TestModelNames])
    def test_a_send_that_no_receiver_of_its_sender_gets_is_logged_once(self, signal, caplog, sender):
        """The line names the signal, the sender, and the senders that have receivers."""
        signal.connect(on_event, sender=User)
        for _ in range(3):
            assert signal.send(sender=sender).id is None
            assert signal.send_robust(sender=sender) == []
            assert signal.send_many(sender, [{}]) == [None]
        (line,) = [record.getMessage() for record in caplog.records]
        assert "tests.senders" in line
        assert "auth.User" in line
        assert f"{__name__}.on_event ({__file__}" in line

    def test_a_send_with_a_receiver_is_not_logged(self, signal, caplog):
        """An inline receiver counts; a signal without any receiver is not logged either."""
        assert signal.send(sender=Group) == []
        signal.connect(on_event, sender=User)
        signal.connect(on_event, sender=Group, inline=True)
        assert len(signal.send(sender=Group)) == 1
        assert caplog.records == []

    def test_the_number_of_remembered_senders_is_limited(self, signal, caplog):
        """A hundred of them are logged."""
        signal.connect(on_event, sender=User)
        for number in range(120):
            signal.send(sender=f"sender {number}")
        assert len(caplog.records) == 100
