"""Plain Django signals on the bus: what they carry, what stays behind, and when they are quiet."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import authenticate, get_user_model, login
from django.contrib.auth.models import Group, Permission
from django.contrib.auth.signals import user_logged_in
from django.core.management import call_command
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import models
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_migrate,
    post_save,
    pre_delete,
    pre_migrate,
    pre_save,
)
from django.dispatch import Signal as DjangoSignal
from django.dispatch import receiver as django_receiver
from django.test import RequestFactory

from signalbus import Signal, delivery_dead, receiver
from signalbus.exceptions import ConfigurationError, MissingRow, PayloadError
from signalbus.sending import bridge
from signalbus.testing import captured
from tasks.admissions.models import Academy, Cohort

HERE = "tests.unit.test_bridge"

stocktaking = DjangoSignal()
restocked = Signal()


@pytest.fixture(autouse=True)
def bridges_as_they_were():
    """Take down the bridges that a test built."""
    before = dict(bridge._bridges)
    yield
    for key, built in list(bridge._bridges.items()):
        if key not in before:
            built.source.disconnect(built, sender=built.sender)
            del bridge._bridges[key]
    bridge._migrating.clear()


def on_change(sender, **kwargs):
    """Receive."""


def on_change_too(sender, **kwargs):
    """Receive as well."""


def payload_of(sent):
    """Give the payload of the only message."""
    (message,) = sent
    return message.payload


@pytest.mark.django_db
class TestModels:
    def test_post_save(self):
        """The saved row travels as a reference, with what Django says beside it."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            academy = Academy.objects.create(name="Web", slug="web")
        assert sent[0].signal == "django.db.models.signals.post_save[admissions.Academy]"
        assert sent[0].sender == "admissions.Academy"
        assert sent[0].recipients == (f"{HERE}.on_change[admissions.Academy]",)
        assert payload_of(sent) == {
            "instance": academy,
            "created": True,
            "raw": False,
            "using": "default",
            "update_fields": None,
        }
        with captured() as sent:
            academy.save(update_fields=["name"])
        assert payload_of(sent)["update_fields"] == frozenset({"name"})

    def test_other_senders_are_not_carried(self):
        """A bridge for one model listens to no other."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            Group.objects.create(name="staff")
        assert not sent

    def test_pre_save_sends_what_is_about_to_be(self):
        """There is no row yet, or it is about to change: the values travel."""
        receiver(pre_save, sender=Academy)(on_change)
        with captured() as sent:
            Academy(name="Web", slug="web").save()
        instance = payload_of(sent)["instance"]
        assert (type(instance), instance.pk, instance.slug) == (Academy, None, "web")

    @pytest.mark.parametrize("signal", [pre_delete, post_delete])
    def test_a_deletion_sends_what_was(self, signal):
        """The row is gone when the worker asks: the values travel, and ``origin`` does not."""
        academy = Academy.objects.create(name="Web", slug="web")
        pk = academy.pk
        receiver(signal, sender=Academy)(on_change)
        with captured() as sent:
            academy.delete()
        payload = payload_of(sent)
        assert (payload["instance"].pk, payload["instance"].slug) == (pk, "web")
        assert payload.keys() == {"instance", "using"}

    def test_a_save_then_a_deletion_is_a_missing_row(self):
        """A reference whose row is gone says so, and names the cure."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web").delete()
        with pytest.raises(MissingRow, match="Snapshot"):
            payload_of(sent)

    def test_m2m_changed(self):
        """The through model is the sender; keys arrive as the set they are."""
        staff = Group.objects.create(name="staff")
        user = get_user_model().objects.create_user("ada")
        receiver(m2m_changed, sender=get_user_model().groups.through)(on_change)
        with captured() as sent:
            user.groups.add(staff)
        assert [message.payload["action"] for message in sent] == ["pre_add", "post_add"]
        payload = sent[0].payload
        assert (payload["instance"], payload["model"], payload["pk_set"]) == (user, Group, {staff.pk})
        assert sent[0].sender == "auth.User_groups"

    def test_fixtures_are_quiet(self):
        """What ``loaddata`` saves is not carried unless asked for."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            Academy(name="Web", slug="web").save_base(raw=True)
        assert not sent
        receiver(post_save, sender=Academy, raw=True)(on_change_too)
        with captured() as sent:
            Academy(name="Data", slug="data").save_base(raw=True)
        assert [message.recipients for message in sent] == [(f"{HERE}.on_change_too[admissions.Academy]",)]

    def test_a_lazy_sender(self):
        """A model may be named as a text, as Django's model signals take it."""
        receiver(post_save, sender="admissions.Academy")(on_change)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert sent[0].recipients == (f"{HERE}.on_change[admissions.Academy]",)

    def test_a_sender_that_comes_later(self):
        """A model that is not there yet is waited for."""
        receiver(post_save, sender="admissions.Latecomer")(on_change)
        assert not any("Latecomer" in built.signal.name for built in bridge._bridges.values())

        class Latecomer(models.Model):  # noqa: DJ008 - nobody reads it
            class Meta:
                app_label = "admissions"

        try:
            built = [each for each in bridge._bridges.values() if each.sender is Latecomer]
            assert [entry.id for entry in built[0].signal.entries()] == [f"{HERE}.on_change[admissions.Latecomer]"]
        finally:
            del apps.all_models["admissions"]["latecomer"]
            apps.clear_cache()

    def test_one_message_for_all_receivers_of_a_sender(self):
        """Receivers with equal options share a bridge, and so a message."""
        receiver(post_save, sender=Academy)(on_change)
        receiver(post_save, sender=Academy)(on_change_too)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert [len(message.recipients) for message in sent] == [2]

    def test_options_make_another_bridge(self):
        """What is left behind, and how it is kept, is each bridge's own; so are their names."""
        receiver(post_save, sender=Academy, exclude=("using", "raw"))(on_change)
        receiver(post_save, sender=Academy, durable=False)(on_change_too)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert sorted(sent_.signal for sent_ in sent) == [
            "django.db.models.signals.post_save[admissions.Academy]+fast",
            "django.db.models.signals.post_save[admissions.Academy]-raw,using",
        ]
        assert sent[0].payload.keys() == {"instance", "created", "update_fields"}
        assert [each.signal.durable for each in bridge._bridges.values() if each.sender is Academy] == [True, False]

    def test_what_cannot_travel_says_so_where_it_is_saved(self):
        """A payload that cannot travel raises in ``save``: it would never arrive."""
        academy = Academy.objects.create(name="Web", slug="web")
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent, pytest.raises(PayloadError, match="lock"):
            post_save.send(Academy, instance=academy, created=True, raw=False, lock=object())
        assert not sent


@pytest.mark.django_db
class TestMigrations:
    def test_migrate_is_quiet_and_ends(self):
        """While ``migrate`` runs nothing is carried; when it is over, it is as before."""
        heard = []

        def during(sender, **kwargs):
            with captured() as sent:
                post_save.send(Permission, instance=Permission(pk=1), created=True, raw=False)
            heard.append(len(sent))

        receiver(post_save, sender=Permission, exclude=("instance",))(on_change)
        pre_migrate.connect(during)
        post_migrate.connect(during)
        try:
            call_command("migrate", verbosity=0)
        finally:
            pre_migrate.disconnect(during)
            post_migrate.disconnect(during)
        assert len(heard) > 2
        assert set(heard[:-1]) == {0}
        with captured() as sent:
            post_save.send(Permission, instance=Permission(pk=1), created=True, raw=False)
        assert len(sent) == 1

    def test_the_last_app_may_have_no_models(self):
        """``migrate`` says nothing of apps without models; its end is seen all the same."""
        assert list(apps.get_app_configs())[-1].models_module is None
        emit_pre_migrate_signal(0, False, "default")
        assert bridge._migrating
        emit_post_migrate_signal(0, False, "default")
        assert not bridge._migrating

    def test_asked_for(self, monkeypatch):
        """``migrations=True`` carries what migrations save."""
        monkeypatch.setattr(bridge, "_migrating", {("default", "admissions")})
        receiver(post_save, sender=Academy, migrations=True)(on_change)
        receiver(post_save, sender=Academy)(on_change_too)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert [message.recipients for message in sent] == [(f"{HERE}.on_change[admissions.Academy]",)]

    def test_historical_models_are_quiet(self):
        """A migration's own model of the past is never carried: no worker has such a class."""
        receiver(post_save)(on_change)
        past = type("Academy", (), {"__module__": "__fake__"})
        with captured() as sent:
            post_save.send(past, instance=None, created=True)
        assert not sent


@pytest.mark.django_db
class TestLogin:
    def test_the_request_stays_behind(self, client):
        """``exclude`` leaves out what cannot travel."""
        get_user_model().objects.create_user("ada", password="lovelace")
        receiver(user_logged_in, exclude=("request",))(on_change)
        request = RequestFactory().get("/")
        request.session = client.session
        user = authenticate(request, username="ada", password="lovelace")
        assert user is not None
        with captured() as sent:
            login(request, user)
        assert sent[0].signal == "django.contrib.auth.signals.user_logged_in-request"
        assert payload_of(sent) == {"user": user}

    def test_without_exclude_it_says_what_to_do(self):
        """A request cannot travel, and the error names it."""
        user = get_user_model().objects.create_user("ada")
        receiver(user_logged_in)(on_change)
        with captured(), pytest.raises(PayloadError, match=r"^request: "):
            user_logged_in.send(get_user_model(), request=RequestFactory().get("/"), user=user)


class TestReceiver:
    def test_a_list_of_both_kinds(self):
        """One decorator connects to plain signals and to ours; the function is unchanged, and typed as it was."""
        assert receiver([stocktaking, restocked])(on_change) is on_change
        with captured() as sent:
            stocktaking.send(None, shelf=1)
            restocked.send(None, shelf=2)
        assert [(message.signal, message.payload) for message in sent] == [
            (f"{HERE}.stocktaking", {"shelf": 1}),
            (f"{HERE}.restocked", {"shelf": 2}),
        ]
        restocked.disconnect(on_change)

    def test_djangos_decorator_on_ours(self):
        """``django.dispatch.receiver`` makes a travelling receiver, with a policy if it gives one."""
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

    @pytest.mark.parametrize("options", [{"exclude": "shelf"}, {"durable": False}, {"raw": True}, {"migrations": True}])
    def test_options_of_plain_signals_are_refused_for_ours(self, options):
        """What ours would ignore is refused, and nothing of the list is connected."""
        with pytest.raises(ConfigurationError, match="are for plain Django signals"):
            receiver([stocktaking, restocked], **options)(on_change)
        assert not stocktaking.has_listeners()

    @pytest.mark.parametrize("wrong", [Cohort, "post_save", [post_save, None]])
    def test_only_signals(self, wrong):
        """What is no signal is refused by name."""
        with pytest.raises(ConfigurationError, match="takes a signal"):
            receiver(wrong)

    def test_a_signal_that_stands_nowhere(self):
        """A worker could not tell which it is."""
        with pytest.raises(ConfigurationError, match="stands in no module"):
            receiver([DjangoSignal()][0])(on_change)

    def test_announcements_are_for_the_worker_itself(self):
        """A receiver of failures that travels could fail, and be told of in turn: refused, with the cure."""
        with pytest.raises(ConfigurationError, match=r"django\.dispatch\.receiver"):
            receiver(delivery_dead)(on_change)

    def test_a_lambda_is_refused(self):
        """What cannot be found again is refused on plain signals as on ours."""
        with pytest.raises(ConfigurationError, match="a lambda"):
            receiver(stocktaking)(lambda **kwargs: None)

    def test_a_plain_signal_keeps_its_own_receivers(self):
        """Who is connected with Django's own means runs in process, beside the bridge."""
        receiver(stocktaking)(on_change)
        stocktaking.connect(on_change_too)
        try:
            with captured() as sent:
                responses = stocktaking.send(None, shelf=1)
        finally:
            stocktaking.disconnect(on_change_too)
        assert (on_change_too, None) in responses
        assert len(sent) == 1
