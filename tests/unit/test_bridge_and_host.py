"""A bridged signal never breaks the code that sends it: it did not ask for the bus."""

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

from signalbus import Signal, ledger, receiver
from signalbus.bridging import bridge
from signalbus.context import CurrentDelivery, running
from signalbus.exceptions import ConfigurationError
from signalbus.models import Delivery, StoredMessage
from signalbus.testing import captured
from tasks.admissions.models import Academy

HERE = __name__

stocktaking = DjangoSignal()
restocked = Signal()

pytestmark = pytest.mark.usefixtures("restored_bridges")


def on_change(sender, **kwargs):
    """Receive."""


@pytest.mark.django_db
class TestTheHostGoesOn:
    """Who saves, deletes or logs in did not ask for the bus, and never fails for it."""

    def test_what_cannot_travel(self, caplog):
        """The save goes on; the error log names signal, receiver, path and cure."""
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

    def test_what_cannot_travel_is_kept_as_dead(self):
        """``failed`` lists it, with path and cure."""
        receiver(post_save, sender=Academy, extract={"lock": lambda **kwargs: object()})(on_change)
        Academy.objects.create(name="Web", slug="web")
        (row,) = ledger.failed(state="dead")
        assert row.receiver == f"{HERE}.on_change[admissions.Academy]"
        assert row.message.signal == "django.db.models.signals.post_save[admissions.Academy]=lock"
        assert "lock: " in row.error
        assert 'exclude=["lock"]' in row.error

    @pytest.mark.parametrize("wrong", [lambda **kwargs: 1 / 0, lambda request, **kwargs: request.META])
    def test_an_extract_that_raises(self, wrong, caplog):
        """What the function raised is the reason."""
        receiver(stocktaking, extract={"ip": wrong})(on_change)
        with captured() as sent:
            stocktaking.send(None, shelf=1)
        assert not sent
        assert "ip: what extract= calls raised" in caplog.text

    @override_settings(SIGNALBUS={"MAX_BYTES": 1000})
    def test_a_row_over_the_limit(self, caplog):
        """A large row can be deleted."""
        receiver(post_delete, sender=Academy)(on_change)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="w" * 2000).delete()
        assert not sent
        assert not Academy.objects.exists()
        assert "MAX_BYTES" in caplog.text

    @pytest.mark.parametrize("signal", [pre_save, post_save])
    def test_an_expression(self, signal):
        """A value that the database computes can be saved."""
        receiver(signal, sender=Academy)(on_change)
        with captured():
            academy = Academy.objects.create(name="Web", slug="web")
            academy.name = Concat(F("name"), Value("!"))
            academy.save()
        assert Academy.objects.get().name == "Web!"

    def test_a_cascade_too_deep(self, caplog):
        """The last save of a loop is a save all the same."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent, override_settings(SIGNALBUS={"MAX_CASCADE": 0}):
            running(IN_A_RECEIVER, Academy(name="Web", slug="web").save)
        assert not sent
        assert Academy.objects.exists()
        assert "A cascade of more than 0 messages" in caplog.text

    def test_a_wrong_configuration(self, monkeypatch, caplog):
        """What stops ``send()`` does not stop a save."""
        receiver(post_save, sender=Academy)(on_change)
        (built,) = bridge.bridges_of(post_save)
        monkeypatch.setattr(built._roster, "_rivals", [tuple(built.entries()) * 2])
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert not sent
        assert "Two receivers are called" in caplog.text

    @pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), TimeoutError()])
    def test_the_clock_around_it_is_heard(self, error, monkeypatch):
        """A task's time limit that comes due in a bridge ends the task."""
        receiver(stocktaking)(on_change)
        monkeypatch.setattr(bridge, "_findable", lambda sender: raise_(error))
        with pytest.raises(type(error)):
            stocktaking.send(None)

    def test_our_own_tables_are_not_carried(self):
        """A bridge for all senders meets the ledger's rows, and lets them be: each would make others."""
        receiver([post_save, post_delete])(on_change)
        with captured() as sent:
            StoredMessage.objects.create(id=uuid4(), text="", created_at=timezone.now()).delete()
        assert not sent

    def test_our_own_tables_are_refused_as_senders(self):
        """Who wants to hear of deliveries is told how."""
        with pytest.raises(ConfigurationError, match="delivery_dead"):
            receiver(post_save, sender=Delivery)(on_change)


def raise_(error):
    """Raise, where there may be no statement."""
    raise error


IN_A_RECEIVER = CurrentDelivery(
    message_id=UUID(int=1), signal="a", receiver="b", attempt=1, root=UUID(int=1), parent=None, path=()
)
