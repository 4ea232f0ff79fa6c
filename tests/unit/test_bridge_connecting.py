"""``signalbus.receiver`` and ``signalbus.disconnect`` work for signals of both kinds."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.apps import apps
from django.core.checks.model_checks import check_lazy_references
from django.db import models
from django.db.models.signals import (
    post_delete,
    post_save,
)
from django.dispatch import Signal as DjangoSignal
from django.dispatch import receiver as django_receiver

from signalbus import Signal, delivery_dead, disconnect, receiver
from signalbus.bridging import bridge, origin
from signalbus.bridging.bridge import bridges_of
from signalbus.exceptions import ConfigurationError
from signalbus.testing import captured
from tasks.admissions.models import Academy, Cohort

HERE = __name__

stocktaking = DjangoSignal()
restocked = Signal()

pytestmark = pytest.mark.usefixtures("restored_bridges")


def on_change(sender, **kwargs):
    """Receive."""


def on_change_too(sender, **kwargs):
    """Receive as well."""


@pytest.mark.django_db
class TestDisconnecting:
    def test_disconnect_a_bridged_receiver(self):
        """``signalbus.disconnect`` undoes ``signalbus.receiver``, with all its options."""
        receiver(post_save, sender=Academy, exclude=("using",))(on_change)
        receiver(post_save, sender=Academy)(on_change)
        receiver(post_save, sender=Academy)(on_change_too)
        assert disconnect(post_save, on_change, sender=Academy)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert [message.recipients for message in sent] == [(f"{HERE}.on_change_too[admissions.Academy]",)]
        assert not disconnect(post_save, on_change, sender=Academy)

    def test_the_last_receiver_removes_the_bridge(self):
        """Django can delete fast again; a new receiver is called."""
        receiver(post_delete, sender=Academy)(on_change)
        assert disconnect(post_delete, on_change, sender="admissions.Academy")
        assert not post_delete.has_listeners(Academy)
        receiver(post_delete, sender=Academy)(on_change)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web").delete()
        assert len(sent) == 1

    def test_disconnect_only_for_one_sender(self):
        """Another sender's receiver stays connected."""
        receiver(post_save, sender=Academy)(on_change)
        assert not disconnect(post_save, on_change)
        assert not disconnect(post_save, on_change, sender=Cohort)
        assert post_save.has_listeners(Academy)

    def test_disconnect_takes_lists_and_uids(self):
        """It takes the same arguments as ``receiver``, for signals of ours and inline receivers too."""
        receiver([stocktaking, restocked], dispatch_uid="a uid")(on_change)
        receiver(stocktaking, inline=True)(on_change_too)
        assert disconnect([stocktaking, restocked], dispatch_uid="a uid")
        assert not restocked.has_listeners()
        assert disconnect(stocktaking, on_change_too)
        assert not stocktaking.has_listeners()

    def test_disconnect_before_the_model_is_loaded(self):
        """It takes effect when the model is loaded, as with Django's own signals."""
        receiver(post_save, sender="admissions.Latecomer")(on_change)
        receiver(post_save, sender="admissions.Latecomer")(on_change_too)
        assert not disconnect(post_save, on_change, sender="admissions.Latecomer")

        class Latecomer(models.Model):  # noqa: DJ008 - nobody reads it
            class Meta:
                app_label = "admissions"

        try:
            (built,) = [each for each in bridges_of(post_save) if each.sender is Latecomer]
            assert [entry.id for entry in built.entries()] == [f"{HERE}.on_change_too[admissions.Latecomer]"]
        finally:
            del apps.all_models["admissions"]["latecomer"]
            apps.clear_cache()

    def test_two_threads_build_one_bridge(self, monkeypatch):
        """Receivers that are connected at the same time share their signal's bridge."""
        second = threading.Thread(target=lambda: receiver(stocktaking)(on_change_too))

        def name_slowly(source):
            if not second.ident:
                second.start()
                second.join(0.2)  # it ends at once, if nothing keeps it from building another one
            return origin.name_of_plain(source)

        monkeypatch.setattr(bridge, "name_of_plain", name_slowly)
        receiver(stocktaking)(on_change)
        second.join()
        with captured() as sent:
            stocktaking.send(None, shelf=1)
        assert [set(message.recipients) for message in sent] == [{f"{HERE}.on_change", f"{HERE}.on_change_too"}]
        assert disconnect(stocktaking, on_change)
        assert disconnect(stocktaking, on_change_too)


class TestReceiver:
    def test_an_unknown_lazy_sender_is_reported(self):
        """The system check that reports the model names the waiting receiver."""
        try:
            receiver(post_save, sender="admissions.Typo")(on_change)
            (error,) = [found for found in check_lazy_references(None) if "admissions.typo" in found.msg]
        finally:
            apps._pending_operations.pop(("admissions", "typo"))
        assert f"{HERE}.on_change" in error.msg

    def test_a_list_of_plain_signals_and_ours(self):
        """One decorator connects to both; the function and its type are unchanged."""
        assert receiver([stocktaking, restocked])(on_change) is on_change
        with captured() as sent:
            stocktaking.send(None, shelf=1)
            restocked.send(None, shelf=2)
        assert [(message.signal, message.payload) for message in sent] == [
            (f"{HERE}.stocktaking", {"shelf": 1}),
            (f"{HERE}.restocked", {"shelf": 2}),
        ]
        restocked.disconnect(on_change)

    def test_djangos_decorator_on_a_signal_of_ours(self):
        """It makes a receiver for the worker, with a policy if it has one."""
        django_receiver([restocked], sender=Cohort, queue="stock")(on_change)
        (entry,) = restocked.entries()
        assert (entry.id, entry.queue) == (f"{HERE}.on_change[admissions.Cohort]", "stock")
        assert restocked.disconnect(on_change, sender=Cohort)

    def test_inline_on_a_plain_signal_is_djangos_own(self):
        """``inline=True`` connects to the plain signal itself."""

        @receiver(stocktaking, inline=True, dispatch_uid="here", retry=None)
        def here(sender, **kwargs):
            return kwargs["shelf"]

        with captured() as sent:
            responses: list[Any] = stocktaking.send(None, shelf=object)
        assert responses[0] == (here, object)
        assert not sent
        assert stocktaking.disconnect(dispatch_uid="here")

    @pytest.mark.parametrize(
        "options",
        [
            {"exclude": "shelf"},
            {"extract": {"shelf": on_change}},
            {"durable": False},
            {"raw": True},
            {"migrations": True},
        ],
    )
    def test_options_of_bridges_are_refused_for_signals_of_ours(self, options):
        """The options would be ignored; nothing of the list is connected."""
        with pytest.raises(ConfigurationError, match="are for plain Django signals"):
            receiver([stocktaking, restocked], **options)(on_change)
        assert not stocktaking.has_listeners()

    @pytest.mark.parametrize("wrong", [Cohort, "post_save", [post_save, None]])
    def test_only_signals_are_accepted(self, wrong):
        """Anything else is refused by name."""
        with pytest.raises(ConfigurationError, match="takes a signal"):
            receiver(wrong)

    def test_a_plain_signal_in_no_variable_is_refused(self):
        """A worker could not tell which one it is."""
        with pytest.raises(ConfigurationError, match="stands in no module"):
            receiver([DjangoSignal()][0])(on_change)

    def test_failure_signals_are_refused(self):
        """A receiver of failures in a worker could fail, and cause more; the error names the remedy."""
        with pytest.raises(ConfigurationError, match=r"django\.dispatch\.receiver"):
            receiver(delivery_dead)(on_change)

    def test_a_lambda_is_refused(self):
        """A lambda cannot be found again, on plain signals and on ours."""
        with pytest.raises(ConfigurationError, match="a lambda"):
            receiver(stocktaking)(lambda **kwargs: None)

    def test_a_plain_signal_keeps_its_own_receivers(self):
        """Receivers that Django connected run in the process, beside the bridge."""
        receiver(stocktaking)(on_change)
        stocktaking.connect(on_change_too)
        try:
            with captured() as sent:
                responses = stocktaking.send(None, shelf=1)
        finally:
            stocktaking.disconnect(on_change_too)
        assert (on_change_too, None) in responses
        assert len(sent) == 1
