"""Settings: each has a default that works; an error names the remedy."""

from __future__ import annotations

import math
import re
from dataclasses import fields

import pytest
from django.core.exceptions import ImproperlyConfigured

from signalbus import Retry, conf
from signalbus.exceptions import ConfigurationError, Forged, SignalBusError, UnknownKey


@pytest.fixture
def given(settings):
    """Read settings as a project would have written them."""

    def read(value):
        settings.SIGNALBUS = value
        return conf.get()

    return read


def test_the_defaults_work(given, settings):
    """Every key has a default; a project needs no SIGNALBUS at all."""
    assert given({}) == conf.Settings()
    del settings.SIGNALBUS
    assert conf.get() == conf.Settings()


def test_each_key_is_read(given):
    """A number of seconds may be an int or a float."""
    read = given({"MAX_BYTES": 1000, "TIME_LIMIT": 60, "QUEUE": "bus", "SIGNING_KEYS": ["new", "old"]})
    assert (read.MAX_BYTES, read.TIME_LIMIT, read.QUEUE, read.keys()) == (1000, 60.0, "bus", ("new", "old"))
    assert type(read.TIME_LIMIT) is float


def test_retry_is_a_retry_or_a_dict(given):
    """The dict has the arguments of Retry."""
    policy = Retry(max_attempts=5, jitter=False)
    for form in (policy, {"max_attempts": 5, "jitter": False}):
        assert policy == given({"RETRY": form}).RETRY


def test_none_may_be_written_where_it_is_the_default(given):
    """It means the same as no key."""
    assert given({"CELERY_APP": None, "QUEUE": None, "SIGNING_KEYS": None, "TIMEOUT": None}) == conf.Settings()


def test_changed_settings_are_read_again(given):
    """A test that overrides settings gets its own values."""
    assert given({"MAX_NESTING": 5}).MAX_NESTING == 5
    assert given({"MAX_NESTING": 6}).MAX_NESTING == 6


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("MAX_BYTE", "MAX_BYTES"),
        ("max_bytes", "MAX_BYTES"),
        ("SIGNING_KEY", "SIGNING_KEYS"),
        ("CELERYAPP", "CELERY_APP"),
    ],
)
def test_an_unknown_key_is_refused_with_the_likely_one(given, wrong, meant):
    """A misspelt key must not be ignored silently."""
    with pytest.raises(ConfigurationError, match=f'did you mean "{meant}"'):
        given({wrong: 1})


def test_an_unknown_key_without_a_likely_one_lists_all_keys(given):
    """The error names all keys."""
    with pytest.raises(ConfigurationError) as raised:
        given({"COLOUR": "blue"})
    assert all(field.name in str(raised.value) for field in fields(conf.Settings))


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("MAX_BYTES", "262144", "of type str; it must be a whole number"),
        ("MAX_BYTES", 1.5, "it must be a whole number"),
        ("MAX_BYTES", True, "it must be a whole number"),
        ("MAX_BYTES", -1, "from 0 up"),
        ("MAX_BYTES", None, "it must be a whole number"),
        ("TIME_LIMIT", "300", "it must be a number"),
        ("TIME_LIMIT", math.nan, "from 0 up"),
        ("TIME_LIMIT", math.inf, "from 0 up"),
        ("TIME_LIMIT", 0, "more than your longest receiver"),
        ("QUEUE", 7, "it must be a text or None"),
        ("QUEUE", "", "leave it out"),
        ("SIGNING_KEYS", "secret", "list of texts"),
        ("SIGNING_KEYS", [], "list of texts"),
        ("SIGNING_KEYS", ["new", ""], "list of texts"),
        ("RETRY", 5, "signalbus.Retry"),
        ("RETRY", None, "signalbus.Retry"),
        ("RETRY", {"attempts": 5}, "max_attempts, base_delay, max_delay, jitter"),
        ("RETRY", {"max_attempts": 0}, "at least 1"),
        ("ATOMIC", "yes", "True or False"),
        ("ATOMIC", 1, "True or False"),
        ("TIMEOUT", 0, "above 0"),
        ("TIMEOUT", "5", "a number"),
    ],
)
def test_a_wrong_value_is_refused_by_name(given, key, value, remedy):
    """The error names the key, the value and what it must be."""
    with pytest.raises(ConfigurationError) as raised:
        given({key: value})
    assert f'SIGNALBUS["{key}"]' in str(raised.value)
    assert remedy in str(raised.value)


@pytest.mark.parametrize("wrong", [[], "MAX_BYTES=1", 7])
def test_settings_must_be_a_dict(given, wrong):
    """Anything else is refused."""
    with pytest.raises(ConfigurationError, match="must be a dict"):
        given(wrong)


def test_the_error_is_an_improperly_configured():
    """Code that catches Django's error, or ours, catches it."""
    assert issubclass(ConfigurationError, ImproperlyConfigured)
    assert issubclass(ConfigurationError, SignalBusError)


class TestKeys:
    def test_a_text_of_a_signal_is_never_read_as_a_task(self, settings):
        """The reverse holds as well: a payload must never be read as a task's call."""
        with pytest.raises(UnknownKey):
            conf.task_signer().verify(conf.signer().sign("body"))
        with pytest.raises(UnknownKey):
            conf.signer().verify(conf.task_signer().sign("body"))

    def test_a_task_s_key_rotates_with_the_others(self, settings):
        """A text that the old key sealed opens while the key is a fallback."""
        settings.SECRET_KEY = "old"
        text = conf.task_signer().sign("body")
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["old"]
        assert conf.task_signer().verify(text) == "body"

    def test_djangos_keys_sign_and_verify(self, settings):
        """SECRET_KEY signs; its fallbacks verify, so a rotated key loses nothing."""
        settings.SECRET_KEY = "old"
        text = conf.signer().sign("1\nheader\npayload")
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["old"]
        assert conf.signer().verify(text) == "1\nheader\npayload"
        settings.SECRET_KEY_FALLBACKS = []
        with pytest.raises(UnknownKey):
            conf.signer().verify(text)

    def test_signing_keys_replace_djangos_keys(self, settings):
        """Django's keys are not used then."""
        settings.SIGNALBUS = {"SIGNING_KEYS": ["ours"]}
        text = conf.signer().sign("body")
        assert conf.signer().verify(text) == "body"
        with pytest.raises(Forged):
            conf.signer().verify(text[:-1] + ("x" if text[-1] != "x" else "y"))
        settings.SIGNALBUS = {}
        with pytest.raises(UnknownKey):
            conf.signer().verify(text)


def test_ended_deliveries_are_kept_as_the_settings_say(given):
    """KEEP_SECONDS counts for each state that KEEP does not name; dead deliveries stay, unless it names them."""
    assert given({"KEEP_SECONDS": 60}).ages() == {"done": 60.0, "skipped": 60.0, "discarded": 60.0}
    read = given({"KEEP": {"skipped": 7 * 86400, "dead": 30.5, "done": None, "counts": None}})
    assert read.ages() == {"skipped": 604800.0, "discarded": 86400.0, "dead": 30.5}
    assert (read.age("counts"), read.age("operations")) == (math.inf, 365 * 86400.0)


@pytest.mark.parametrize("value", [{"failed": 1}, {"done": -1}, {"done": "1"}, {"done": True}, 60, {"done": math.inf}])
def test_an_invalid_age_is_refused(given, value):
    """The error lists what may be kept."""
    with pytest.raises(ConfigurationError, match="done, skipped, discarded, dead, counts, operations, alerts"):
        given({"KEEP": value})


def test_alerts_have_defaults_for_what_is_not_given(given):
    """ALERTS names what differs."""
    assert given({}).alerts() == conf.ALERT_KEYS
    read = given({"ALERTS": {"webhook": "https://hooks.example/1", "overdue": 60}}).alerts()
    assert (read["webhook"], read["overdue"], read["rollout"]) == ("https://hooks.example/1", 60, 600.0)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("https://hooks.example/1", "is a dict with mail_admins, webhook"),
        ({"mail_admin": True}, 'did you mean "mail_admins"?'),
        ({7: True}, "the keys are mail_admins"),
        ({"mail_admins": "ana@shop.example"}, "must be True or False"),
        ({"webhook": "http://hooks.example/1"}, "begins with https://"),
        ({"webhook": "file:///etc/passwd"}, "begins with https://"),
        ({"webhook": "https://"}, "begins with https://"),
        ({"webhook": "https://hooks.example/\r\n1"}, "begins with https://"),
        ({"webhook": None}, "begins with https://"),
        ({"overdue": 0}, "seconds above 0"),
        ({"rollout": True}, "seconds above 0"),
        ({"overdue": math.inf}, "seconds above 0"),
    ],
)
def test_wrong_alerts_are_refused_with_the_remedy(given, value, remedy):
    """Before a worker needs them."""
    with pytest.raises(ConfigurationError, match=re.escape(remedy)):
        given({"ALERTS": value})


def test_the_address_of_the_watcher_is_encrypted_or_of_this_machine(given):
    """Anything else on the way could see when the bus is away."""
    assert given({"HEARTBEAT_URL": "http://127.0.0.1:8000/beat"}).HEARTBEAT_URL == "http://127.0.0.1:8000/beat"
    with pytest.raises(ConfigurationError, match="begins with https://"):
        given({"HEARTBEAT_URL": "http://beat.example/1"})
