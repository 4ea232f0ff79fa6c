"""A bridged signal never breaks the code that sends the plain signal."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.db.models.signals import (
    post_delete,
    post_save,
    pre_save,
)
from django.dispatch import Signal as DjangoSignal
from django.test import override_settings
from django.utils import timezone

from signalbus import Signal, receiver
from signalbus.bridging import bridge
from signalbus.context import CurrentDelivery
from signalbus.exceptions import ConfigurationError
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, StoredMessage
from signalbus.testing import captured
from tasks.admissions.models import Academy
from tests.unit.running import running

HERE = __name__

stocktaking = DjangoSignal()
restocked = Signal()

pytestmark = pytest.mark.usefixtures("restored_bridges")


def on_change(sender, **kwargs):
    """Receive."""


@pytest.mark.django_db
class TestSendersOfPlainSignals:
    """A save, a delete or a login never fails because of a bridge."""

    def test_a_payload_that_cannot_travel_is_logged(self, caplog):
        """The save succeeds; the error log names the signal, the receiver, the path and the remedy."""
        receiver(post_save, sender=Academy, extract={"lock": lambda **kwargs: {"inside": object()}})(on_change)
        with captured() as sent:
            academy = Academy.objects.create(name="Web", slug="web")
        assert not sent
        assert Academy.objects.get() == academy
        (record,) = [record for record in caplog.records if record.name == "signalbus"]
        text = record.getMessage() + str(record.exc_info)
        assert record.levelname == "ERROR"
        assert "lock.inside: builtins.object" in text or "lock.inside: object" in text
        assert "post_save[admissions.Academy]=lock" in text
        assert f"{HERE}.on_change[admissions.Academy]" in text
        assert 'exclude=["lock"]' in text
        assert "extract=" in text

    def test_a_payload_that_cannot_travel_is_a_dead_delivery(self):
        """``failed`` lists it, with the path and the remedy."""
        receiver(post_save, sender=Academy, extract={"lock": lambda **kwargs: object()})(on_change)
        Academy.objects.create(name="Web", slug="web")
        (row,) = ledger.failed(state="dead")
        assert row.receiver == f"{HERE}.on_change[admissions.Academy]"
        assert row.message.signal == "django.db.models.signals.post_save[admissions.Academy]=lock"
        assert "lock: " in row.error
        assert 'exclude=["lock"]' in row.error

    @pytest.mark.parametrize("wrong", [lambda **kwargs: 1 / 0, lambda request, **kwargs: request.META])
    def test_the_error_of_an_extract_is_the_reason_of_the_dead_delivery(self, wrong, caplog):
        """The function's error is the reason."""
        receiver(stocktaking, extract={"ip": wrong})(on_change)
        with captured() as sent:
            stocktaking.send(None, shelf=1)
        assert not sent
        assert "ip: what extract= calls raised" in caplog.text

    @override_settings(SIGNALBUS={"MAX_BYTES": 1000})
    def test_a_row_over_the_limit_can_be_deleted(self, caplog):
        """The bridge refuses its snapshot, and the delete succeeds."""
        receiver(post_delete, sender=Academy)(on_change)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="w" * 2000).delete()
        assert not sent
        assert not Academy.objects.exists()
        assert "MAX_BYTES" in caplog.text

    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_an_expression_can_be_saved(self, signal):
        """The database computes the value."""
        receiver(signal, sender=Academy)(on_change)
        with captured():
            academy = Academy.objects.create(name="Web", slug="web")
            academy.name = Concat(F("name"), Value("!"))
            academy.save()
        assert Academy.objects.get().name == "Web!"

    def test_a_save_beyond_the_cascade_limit_succeeds(self, caplog):
        """Only the message is refused."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent, override_settings(SIGNALBUS={"MAX_CASCADE": 0}):
            running(IN_A_RECEIVER, Academy(name="Web", slug="web").save)
        assert not sent
        assert Academy.objects.exists()
        assert "A cascade of more than 0 messages" in caplog.text

    def test_a_wrong_configuration_does_not_stop_a_save(self, monkeypatch, caplog):
        """The same configuration does stop `send()`."""
        receiver(post_save, sender=Academy)(on_change)
        (built,) = bridge.bridges_of(post_save)
        monkeypatch.setattr(built._subscriptions, "_rivals", [tuple(built.entries()) * 2])
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert not sent
        assert "Two receivers are called" in caplog.text

    @pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), TimeoutError()])
    def test_a_time_limit_inside_a_bridge_ends_the_task(self, error, monkeypatch):
        """A task's time limit is not swallowed."""
        receiver(stocktaking)(on_change)
        monkeypatch.setattr(bridge, "_findable", lambda sender: raise_(error))
        with pytest.raises(type(error)):
            stocktaking.send(None)

    def test_our_own_tables_are_not_carried(self):
        """A bridge for all senders leaves out the ledger's rows, because each would make others."""
        receiver([post_save, post_delete])(on_change)
        with captured() as sent:
            StoredMessage.objects.create(id=uuid4(), text="", created_at=timezone.now()).delete()
        assert not sent

    def test_our_own_tables_are_refused_as_senders(self):
        """The error names the signals that report deliveries."""
        with pytest.raises(ConfigurationError, match="delivery_dead"):
            receiver(post_save, sender=Delivery)(on_change)


def raise_(error):
    """Raise, in a place that takes an expression only."""
    raise error


IN_A_RECEIVER = CurrentDelivery(
    message_id=UUID(int=1), signal="a", receiver="b", attempt=1, root=UUID(int=1), parent=None, path=()
)
