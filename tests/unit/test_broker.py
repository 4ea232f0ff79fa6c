"""A mistake in the broker's address is a system check error with the remedy, never a traceback."""

from __future__ import annotations

import pytest
from celery import Celery
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from signalbus import celery
from signalbus.broker.publisher import PublishError, publish
from signalbus.checks import check_settings
from signalbus.core.broker_address import reject_unusable
from signalbus.exceptions import ConfigurationError

UNUSABLE = [
    ("reddis://127.0.0.1:1/0", "Did you mean redis"),
    ("valkey://127.0.0.1:1/0", "for Valkey as well"),
    ("127.0.0.1:6379", "redis://"),
    ("redis:/127.0.0.1:6379/0", "redis://"),
    ("redis://127.0.0.1:port/0", "port from 1 to 65535"),
    ("redis://127.0.0.1:99999/0", "port from 1 to 65535"),
    ("redis://:pa#ss@127.0.0.1:1/0", "urllib.parse.quote"),
    ("redis://127.0.0.1:1/zero", "numbers its databases"),
    (
        "redis://127.0.0.1:1/0?health_check_interval=30",
        'CELERY_BROKER_TRANSPORT_OPTIONS = {"health_check_interval": …}',
    ),
    ("redis://127.0.0.1:1/0;reddis://127.0.0.1:2/0", "Did you mean redis"),
    ("rediss://127.0.0.1:1/0?ssl_cert_reqs=maybe", "maybe"),
    ("sentinel://127.0.0.1:1", "master_name"),
    ("librabbitmq://127.0.0.1", "not installed"),
    ("amqp://127.0.0.1:1//?heartbeat=often", "often"),
]


@pytest.fixture
def new_app():
    """Make our own app anew with the settings of the test, and again after it."""
    celery.get_app.cache_clear()
    yield
    celery.get_app.cache_clear()


@pytest.mark.parametrize(("address", "remedy"), UNUSABLE)
def test_unusable_address_is_a_check_error(new_app, settings, address, remedy):
    """The error names the setting and the remedy."""
    settings.CELERY_BROKER_URL = address
    (error,) = check_settings()
    assert error.id == "signalbus.E001"
    assert "CELERY_BROKER_URL" in error.msg
    assert remedy in error.msg
    assert "pa#ss" not in error.msg


@pytest.mark.django_db
def test_every_command_with_checks_reports_the_address(new_app, settings):
    """A command ends with the error of the check, not with kombu's traceback."""
    settings.CELERY_BROKER_URL = "reddis://127.0.0.1:1/0"
    with pytest.raises(SystemCheckError, match="Did you mean redis"):
        call_command("signalbus", "failed", skip_checks=False)


def test_address_of_the_hosts_app_is_checked(settings, monkeypatch):
    """If the address is that of the host's app, the error names that app."""
    app = Celery("theirs", broker="reddis://127.0.0.1:1/0", set_as_current=False)
    monkeypatch.setattr(celery, "get_app", lambda: app)
    settings.SIGNALBUS = {"CELERY_APP": "shop.celery:app"}
    (error,) = check_settings()
    assert "shop.celery:app" in error.msg
    assert "Did you mean redis" in error.msg


@pytest.mark.parametrize(
    "address",
    [
        None,
        "memory://",
        "localhost",
        "rabbit.internal",
        "redis://",
        "redis://:secret@127.0.0.1:1/7 ",
        "redis://127.0.0.1:1/0;redis://127.0.0.1:2/0",
        ["redis://127.0.0.1:1/0", "redis://127.0.0.1:2/0"],
        "redis+socket:///tmp/x.sock",
        "amqp://user:secret@127.0.0.1:1//shop",
    ],
)
def test_usable_addresses_pass(address):
    """An address that kombu can use is accepted, without a connection."""
    reject_unusable(Celery("theirs", broker=address, set_as_current=False), "CELERY_BROKER_URL")


def test_transport_options_must_be_a_dict(new_app, settings):
    """The error of another type says so."""
    settings.CELERY_BROKER_TRANSPORT_OPTIONS = ["master_name"]
    (error,) = check_settings()
    assert "CELERY_BROKER_TRANSPORT_OPTIONS" in error.msg


def test_address_without_a_scheme_needs_the_transport_setting():
    """Celery's older pair of settings, a host and a transport's name, is accepted."""
    app = Celery("theirs", broker="127.0.0.1", set_as_current=False)
    app.conf.broker_transport = "redis"
    reject_unusable(app, "CELERY_BROKER_URL")


def test_password_is_not_shown():
    """The error masks the password in the address."""
    app = Celery("theirs", broker="reddis://shop:hush@127.0.0.1:1/0", set_as_current=False)
    with pytest.raises(ConfigurationError) as caught:
        reject_unusable(app, "CELERY_BROKER_URL")
    assert "hush" not in str(caught.value)
    assert "shop" in str(caught.value)


class TestRemedyForABrokerThatDoesNotAnswer:
    """The error of an unreachable broker names the setting and its value."""

    def app(self, monkeypatch, **settings):
        made = Celery("made", set_as_current=False)
        made.conf.update(settings)
        monkeypatch.setattr(celery, "get_app", lambda: made)

    def test_the_error_names_the_setting_and_its_address(self, monkeypatch):
        """The setting and the address are named, without the password."""
        self.app(monkeypatch, broker_url="redis://:hush@127.0.0.1:1/0")
        remedy = celery.broker_remedy()
        assert remedy == "Is CELERY_BROKER_URL ('redis://:**@127.0.0.1:1/0') right, and does the broker run?"

    def test_the_error_names_the_address_that_is_not_set(self, monkeypatch):
        """The error says so, and how to set it, because RabbitMQ was not meant."""
        self.app(monkeypatch)
        assert celery.broker_remedy() == (
            "CELERY_BROKER_URL is not set: Celery would look for a RabbitMQ on this machine. Set it in the environment "
            "or the settings, as redis://127.0.0.1:6379/0."
        )

    def test_the_error_names_all_addresses_of_a_fail_over(self, monkeypatch):
        """All addresses of a fail-over are named, each once."""
        self.app(monkeypatch, broker_url=["redis://a:1/0", "redis://:hush@b:1/0;redis://c:1/0"])
        assert "('redis://a:1/0', 'redis://:**@b:1/0', 'redis://c:1/0')" in celery.broker_remedy()

    @pytest.mark.parametrize("address", [None, "redis://127.0.0.1:1/0"])
    def test_app_of_the_host(self, monkeypatch, settings, address):
        """The error names the host's setting, not that of our app."""
        self.app(monkeypatch, broker_url=address)
        settings.SIGNALBUS = {"CELERY_APP": "shop.celery:app"}
        remedy = celery.broker_remedy()
        assert remedy.startswith(
            "Is the broker_url of the Celery app 'shop.celery:app'" if address else "The broker_url"
        )
        assert "CELERY_BROKER_URL" not in remedy

    def test_failed_publication(self, new_app, settings):
        """The publisher's error has the remedy."""
        settings.CELERY_BROKER_URL = "redis://127.0.0.1:1/0"
        with pytest.raises(PublishError, match=r"\('redis://127.0.0.1:1/0'\) right, and does the broker run\?$"):
            publish(None, ["{}"])

    @pytest.mark.parametrize("cause", ["no_such:app", "tests.unit.test_broker:no_app"])
    def test_app_that_cannot_be_made(self, new_app, settings, cause):
        """This error is not the broker's, so it names no address."""
        settings.SIGNALBUS = {"CELERY_APP": cause}
        with pytest.raises(PublishError) as caught:
            publish(None, ["{}"])
        assert "CELERY_APP" in str(caught.value)
        assert "does the broker run" not in str(caught.value)
