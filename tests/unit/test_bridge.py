"""Plain Django signals on the bus: what they carry, and what stays behind."""

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
from signalbus.exceptions import ConfigurationError, MissingRow
from signalbus.sending import bridge
from signalbus.testing import captured
from tasks.admissions.models import Academy

HERE = __name__

stocktaking = DjangoSignal()
restocked = Signal()

pytestmark = pytest.mark.usefixtures("bridges_as_they_were")


received: list[DjangoSignal] = []


def on_change(sender, signal, **kwargs):
    """Receive."""
    received.append(signal)


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

    def test_the_receiver_gets_the_plain_signal(self):
        """A receiver of two signals can tell which fired, in the worker too."""
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

    def test_links_of_fixtures_are_quiet(self, tmp_path):
        """So is what ``loaddata`` links, of which Django's ``m2m_changed`` does not say that it is raw."""
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

    def test_a_lazy_sender(self):
        """A model may be named as a text, as Django's model signals take it."""
        receiver(post_save, sender="admissions.Academy")(on_change)
        with captured() as sent:
            Academy.objects.create(name="Web", slug="web")
        assert sent[0].recipients == (f"{HERE}.on_change[admissions.Academy]",)

    def test_a_sender_that_comes_later(self):
        """A model that is not there yet is waited for."""
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
        assert [each.durable for each in bridge._bridges.values() if each.sender is Academy] == [True, False]


@pytest.mark.django_db
class TestLogin:
    def test_a_login_with_nothing_said(self, client, caplog):
        """The request stays behind by itself."""
        user = get_user_model().objects.create_user("ada", password="lovelace")
        receiver(user_logged_in)(on_change)
        with captured() as sent:
            assert client.login(username="ada", password="lovelace")
        assert sent[0].signal == "django.contrib.auth.signals.user_logged_in"
        assert payload_of(sent) == {"user": user}
        assert not caplog.records

    def test_exclude(self, client):
        """``exclude`` leaves out what is named."""
        get_user_model().objects.create_user("ada", password="lovelace")
        receiver(user_logged_in, exclude=("request", "user"))(on_change)
        with captured() as sent:
            client.login(username="ada", password="lovelace")
        assert sent[0].signal == "django.contrib.auth.signals.user_logged_in-request,user"
        assert payload_of(sent) == {}

    def test_extract(self, client):
        """``extract`` sends what a function makes of what the signal sends, beside it or in its place."""
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

    def test_requests_and_responses(self, rf):
        """Requests and responses stay behind whatever they are called, a framework's request around one too."""

        class Request:
            _request = rf.get("/")

        receiver(stocktaking)(on_change)
        with captured() as sent:
            stocktaking.send(
                None, request=Request(), http=rf.get("/"), response=HttpResponse(), file=StreamingHttpResponse()
            )
            stocktaking.send(None, request=1, response="no such thing")
        assert [message.payload for message in sent] == [{}, {"request": 1, "response": "no such thing"}]

    def test_a_request_in_a_dict_stays_behind(self, rf):
        """A context that holds a request travels without it, at any depth of dicts; the sender keeps its own dict."""
        receiver(stocktaking)(on_change)
        context = {"a": 1, "request": rf.get("/"), "inner": {"response": HttpResponse(), "b": 2}}
        with captured() as sent:
            stocktaking.send(None, context=context)
        assert sent[0].payload == {"context": {"a": 1, "inner": {"b": 2}}}
        assert context.keys() == {"a", "request", "inner"}

    def test_a_sender_that_no_worker_may_look_up(self, rf):
        """Of a handler's class its name travels."""
        receiver(got_request_exception)(on_change)
        with captured() as sent:
            got_request_exception.send(WSGIHandler, request=rf.get("/"))
        assert sent[0].sender == "django.core.handlers.wsgi:WSGIHandler"
        assert payload_of(sent) == {}


def name_of_user(user, **kwargs):
    """Extract a name."""
    return user.get_username()


def name_of_user_too(user, **kwargs):
    """Extract a name, elsewhere."""
    return user.get_username()


class TestExtract:
    def test_one_function_for_all_receivers_of_a_key(self):
        """Receivers share a message, so they share what it holds; who differs is told of both places."""
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
    def test_what_cannot_be_called(self, wrong, text):
        """What would fail with each sending is refused where it is connected."""
        with pytest.raises(ConfigurationError, match=text):
            receiver(stocktaking, extract=wrong)(on_change)
