"""Plain Django signals on the bus: what their bridges carry, and what they leave out."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.auth.signals import user_logged_in
from django.core import serializers
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.signals import got_request_exception
from django.db import models
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)
from django.dispatch import Signal as DjangoSignal
from django.http import HttpResponse, StreamingHttpResponse

from signalbus import Signal, receiver
from signalbus.bridging import bridge
from signalbus.exceptions import ConfigurationError, MissingRow
from signalbus.testing import captured
from tasks.admissions.models import Academy

HERE = __name__

stocktaking = DjangoSignal()
restocked = Signal()

pytestmark = pytest.mark.usefixtures("restored_bridges")


received: list[DjangoSignal] = []


def on_change(sender, signal, **kwargs):
    """Receive."""
    received.append(signal)


def on_change_too(sender, **kwargs):
    """Receive as well."""


def payload_of(sent):
    """Return the payload of the only message."""
    (message,) = sent
    return message.payload


@pytest.mark.django_db
class TestModels:
    def test_post_save_sends_a_reference(self):
        """The saved row travels as a reference, with Django's other arguments."""
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
        """A bridge for one model receives no other."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            Group.objects.create(name="staff")
        assert not sent

    def test_pre_save_sends_the_values(self):
        """There is no row yet, or it is about to change, so the values travel."""
        receiver(pre_save, sender=Academy)(on_change)
        with captured() as sent:
            Academy(name="Web", slug="web").save()
        instance = payload_of(sent)["instance"]
        assert (type(instance), instance.pk, instance.slug) == (Academy, None, "web")

    @pytest.mark.parametrize("signal", [pre_delete, post_delete])
    def test_a_deletion_sends_the_values(self, signal):
        """The row is gone when the worker runs, so the values travel, without ``origin``."""
        academy = Academy.objects.create(name="Web", slug="web")
        pk = academy.pk
        receiver(signal, sender=Academy)(on_change)
        with captured() as sent:
            academy.delete()
        payload = payload_of(sent)
        assert (payload["instance"].pk, payload["instance"].slug) == (pk, "web")
        assert payload.keys() == {"instance", "using"}

    def test_a_save_then_a_deletion_is_a_missing_row(self):
        """A reference whose row is gone raises an error with the remedy."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web").delete()
        with pytest.raises(MissingRow, match="Snapshot"):
            payload_of(sent)

    def test_the_receiver_gets_the_plain_signal(self):
        """A receiver of two signals can tell which was sent, in the worker too."""
        receiver([post_save, post_delete], sender=Academy)(on_change)
        received.clear()
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web").delete()
            sent.deliver_all()
        assert received == [post_delete]
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
            sent.deliver_all()
        assert received == [post_delete, post_save]

    def test_m2m_changed_sends_the_through_model_and_keys(self):
        """The through model is the sender, and the keys arrive as a set."""
        staff = Group.objects.create(name="staff")
        user = get_user_model().objects.create_user("ada")
        receiver(m2m_changed, sender=get_user_model().groups.through)(on_change)
        with captured() as sent:
            user.groups.add(staff)
        assert [message.payload["action"] for message in sent] == ["pre_add", "post_add"]
        payload = sent[0].payload
        assert (payload["instance"], payload["model"], payload["pk_set"]) == (user, Group, {staff.pk})
        assert sent[0].sender == "auth.User_groups"

    def test_fixtures_are_not_carried(self):
        """Rows that ``loaddata`` saves are not carried without ``raw=True``."""
        receiver(post_save, sender=Academy)(on_change)
        with captured() as sent:
            Academy(name="Web", slug="web").save_base(raw=True)
        assert not sent
        receiver(post_save, sender=Academy, raw=True)(on_change_too)
        with captured() as sent:
            Academy(name="Data", slug="data").save_base(raw=True)
        assert [message.recipients for message in sent] == [(f"{HERE}.on_change_too[admissions.Academy]",)]

    def test_links_of_fixtures_are_not_carried(self, tmp_path):
        """Django's ``m2m_changed`` does not mark them as raw."""
        staff = Group.objects.create(name="staff")
        user = get_user_model().objects.create_user("ada")
        user.groups.add(staff)
        fixture = tmp_path / "users.json"
        fixture.write_text(serializers.serialize("json", [user]))
        for raw, carried in ((False, 0), (True, 2)):
            user.groups.clear()
            receiver(m2m_changed, sender=get_user_model().groups.through, raw=raw)(on_change)
            with captured() as sent:
                call_command("loaddata", fixture, verbosity=0)
            assert len(sent) == carried

    def test_a_sender_can_be_a_model_name(self):
        """A model may be named by a text, as in Django's model signals."""
        receiver(post_save, sender="admissions.Academy")(on_change)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert sent[0].recipients == (f"{HERE}.on_change[admissions.Academy]",)

    def test_a_model_that_is_loaded_later_is_connected(self):
        """The connection waits for the model."""
        receiver(post_save, sender="admissions.Latecomer")(on_change)
        assert not any("Latecomer" in built.name for built in bridge._bridges.values())

        class Latecomer(models.Model):  # noqa: DJ008 - nobody reads it
            class Meta:
                app_label = "admissions"

        try:
            built = [each for each in bridge._bridges.values() if each.sender is Latecomer]
            assert [entry.id for entry in built[0].entries()] == [f"{HERE}.on_change[admissions.Latecomer]"]
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
        """Other options make another bridge, with a name of its own."""
        receiver(post_save, sender=Academy, exclude=("using", "raw"))(on_change)
        receiver(post_save, sender=Academy, durable=False)(on_change_too)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert sorted(sent_.signal for sent_ in sent) == [
            "django.db.models.signals.post_save[admissions.Academy]+fast",
            "django.db.models.signals.post_save[admissions.Academy]-raw,using",
        ]
        assert sent[0].payload.keys() == {"instance", "created", "update_fields"}
        assert [each.durable for each in bridge._bridges.values() if each.sender is Academy] == [True, False]


@pytest.mark.django_db
class TestLogin:
    def test_a_login_leaves_the_request_out(self, client, caplog):
        """Without options the request is left out."""
        user = get_user_model().objects.create_user("ada", password="lovelace")
        receiver(user_logged_in)(on_change)
        with captured() as sent:
            assert client.login(username="ada", password="lovelace")
        assert sent[0].signal == "django.contrib.auth.signals.user_logged_in"
        assert payload_of(sent) == {"user": user}
        assert not caplog.records

    def test_exclude_leaves_values_out(self, client):
        """``exclude`` leaves out the named values."""
        get_user_model().objects.create_user("ada", password="lovelace")
        receiver(user_logged_in, exclude=("request", "user"))(on_change)
        with captured() as sent:
            client.login(username="ada", password="lovelace")
        assert sent[0].signal == "django.contrib.auth.signals.user_logged_in-request,user"
        assert payload_of(sent) == {}

    def test_extract_adds_and_replaces_values(self, client):
        """The result of a function is sent beside the signal's values, or in place of one."""
        get_user_model().objects.create_user("ada", password="lovelace")
        receiver(
            user_logged_in,
            extract={"request": lambda request, **kwargs: request.method, "name": name_of_user},
        )(on_change)
        with captured() as sent:
            client.force_login(get_user_model().objects.get())
        assert sent[0].signal == "django.contrib.auth.signals.user_logged_in=name,request"
        payload = payload_of(sent)
        assert (payload["name"], payload["request"]) == ("ada", None)

    def test_requests_and_responses_are_left_out(self, rf):
        """They are left out under any name, also a framework's wrapper of a request."""

        class Request:
            _request = rf.get("/")

        receiver(stocktaking)(on_change)
        with captured() as sent:
            stocktaking.send(
                None, request=Request(), http=rf.get("/"), response=HttpResponse(), file=StreamingHttpResponse()
            )
            stocktaking.send(None, request=1, response="no such thing")
        assert [message.payload for message in sent] == [{}, {"request": 1, "response": "no such thing"}]

    def test_a_request_in_a_dict_is_left_out(self, rf):
        """It is left out at any depth of dicts; the sender's own dict does not change."""
        receiver(stocktaking)(on_change)
        context = {"a": 1, "request": rf.get("/"), "inner": {"response": HttpResponse(), "b": 2}}
        with captured() as sent:
            stocktaking.send(None, context=context)
        assert sent[0].payload == {"context": {"a": 1, "inner": {"b": 2}}}
        assert context.keys() == {"a", "request", "inner"}

    def test_a_sender_outside_the_apps_arrives_as_its_name(self, rf):
        """A handler's class travels as its name."""
        receiver(got_request_exception)(on_change)
        with captured() as sent:
            got_request_exception.send(WSGIHandler, request=rf.get("/"))
        assert sent[0].sender == "django.core.handlers.wsgi:WSGIHandler"
        assert payload_of(sent) == {}


def name_of_user(user, **kwargs):
    """Extract a name."""
    return user.get_username()


def name_of_user_too(user, **kwargs):
    """Extract a name, in another function."""
    return user.get_username()


class TestExtract:
    def test_two_functions_for_one_key_are_refused(self):
        """Receivers share a message, so they share its values; the error names both places."""
        receiver(stocktaking, extract={"name": name_of_user})(on_change)
        receiver(stocktaking, extract={"name": name_of_user})(on_change_too)
        assert len(bridge.bridges_of(stocktaking)) == 1
        with pytest.raises(ConfigurationError, match=r"name_of_user.*name_of_user_too.*the same function"):
            receiver(stocktaking, extract={"name": name_of_user_too})(on_change_too)

    @pytest.mark.parametrize(
        ("wrong", "text"),
        [
            ({"name": "ada"}, "function"),
            ({"name": lambda user: user}, r"\*\*kwargs"),
            ({"sender": name_of_user}, "beside"),
        ],
    )
    def test_an_extract_that_cannot_be_called_is_refused(self, wrong, text):
        """`connect` refuses the function, because each send would fail."""
        with pytest.raises(ConfigurationError, match=text):
            receiver(stocktaking, extract=wrong)(on_change)
