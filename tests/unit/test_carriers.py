"""The carriers of the package, and the errors of a wrong ``SIGNALBUS["CARRY"]``."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.apps import apps
from django.db import connections
from django.utils import timezone, translation

from signalbus import Signal
from signalbus.carriers import Language, TenantSchema, TimeZone, carrying
from signalbus.checks import check_settings, check_tenants
from signalbus.exceptions import ConfigurationError, PayloadError, SignalBusError, UnknownClass
from signalbus.testing import captured

LANGUAGE = "signalbus.carriers.Language"


class Named:
    """A carrier with methods that are never called."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def capture(self):
        """Return nothing."""

    def restore(self, value):
        """Restore nothing."""


@pytest.fixture
def carry(settings):
    """Set the carriers."""

    def carry(*carriers):
        settings.SIGNALBUS = {"CARRY": list(carriers)}

    return carry


@pytest.fixture
def seen():
    """The context that a receiver saw."""
    return []


@pytest.fixture
def signal(seen):
    """A signal whose receiver records the language and the time zone."""
    signal = Signal("tests.carried")

    def note(sender, **kwargs):
        seen.append((translation.get_language(), str(timezone.get_current_timezone())))

    signal.connect(note, weak=False, dispatch_uid="note")
    return signal


@pytest.mark.django_db
def test_language_and_time_zone_are_restored(carry, signal, seen):
    """A receiver has its sender's language and time zone; afterwards the worker's own are back."""
    carry(LANGUAGE, TimeZone())
    before = translation.get_language(), str(timezone.get_current_timezone())
    with captured() as sent:
        with translation.override("de-at"), timezone.override("Europe/Vienna"):
            signal.send(None)
        sent.deliver_all()
    assert seen == [("de-at", "Europe/Vienna")]
    assert sent[0].context == {"language": "de-at", "time_zone": "Europe/Vienna"}
    assert (translation.get_language(), str(timezone.get_current_timezone())) == before


@pytest.mark.django_db
@pytest.mark.parametrize("hours", [-3.5, 0, 5.75])
def test_a_fixed_time_zone_is_restored(carry, signal, seen, hours: float):
    """A time zone without a name travels as its offset from UTC."""
    carry(TimeZone)
    zone = dt.timezone(dt.timedelta(hours=hours))
    with captured() as sent:
        with timezone.override(zone):
            signal.send(None)
        sent.deliver_all()
    ((_, shown),) = seen
    assert shown == str(zone)


def test_a_time_zone_that_cannot_travel_is_refused(carry, signal):
    """A time zone of another class has no name that a worker could find."""

    class Strange(dt.tzinfo):
        def utcoffset(self, when):
            return None if when is None else dt.timedelta(hours=1)

        def dst(self, when):
            return None

        def tzname(self, when):
            return "strange"

    carry(TimeZone)
    with captured(), timezone.override(Strange()), pytest.raises(PayloadError, match=r"ZoneInfo"):
        signal.send(None)


def test_nothing_is_carried_without_a_language_and_time_zone(carry, signal, settings):
    """Without USE_I18N and USE_TZ, or an active language, a message has no context."""
    carry(Language, TimeZone)
    settings.USE_I18N = settings.USE_TZ = False
    with captured() as sent:
        signal.send(None)
    assert sent[0].context == {}


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("a text", "must be a list of carriers"),
        ([None], "must be a list of carriers"),
        (["signalbus.carriers.Langage"], "cannot be imported"),
        (["no_such_module.Carrier"], "cannot be imported"),
        ([object()], "needs a `name`"),
        ([Named("")], "needs a `name`"),
        ([Named(3)], "needs a `name`"),
        ([type("Half", (), {"name": "half", "capture": lambda self: 1})], r"has no method restore\(\)"),
        ([LANGUAGE, Language], "Two carriers .* are called 'language'"),
        (["signalbus.carriers.TenantSchema"], "needs django-tenants"),
    ],
)
def test_a_wrong_setting_is_an_error_of_the_checks(settings, wrong: Any, text: str):
    """``check`` names the carrier and what to write."""
    settings.SIGNALBUS = {"CARRY": wrong}
    with pytest.raises(ConfigurationError, match=text):
        carrying.carriers()
    assert [found.id for found in check_settings()] == ["signalbus.E001"]


def test_carry_may_be_a_tuple_or_empty(settings):
    """Other settings accept both as well."""
    settings.SIGNALBUS = {"CARRY": (LANGUAGE,)}
    assert list(carrying.carriers()) == ["language"]
    settings.SIGNALBUS = {"CARRY": []}
    assert not carrying.carriers()
    assert not carrying.capture()


def test_an_unknown_carrier_is_named(carry):
    """The reason of a parked message names the carrier to add."""
    carry(Language)
    with pytest.raises(UnknownClass, match=r"the carrier 'tenant': .*CARRY"):
        carrying.call_restored({"language": "de", "tenant": "alpha"}, lambda: None)


def test_tenants_without_a_carrier_are_warned_of(settings, monkeypatch):
    """With django-tenants and no carrier "tenant", a worker may load another tenant's row."""
    monkeypatch.setattr(apps, "is_installed", lambda app: app == "django_tenants")
    (warning,) = check_tenants()
    assert warning.id == "signalbus.W006"
    assert "signalbus.carriers.TenantSchema" in str(warning.hint)
    settings.SIGNALBUS = {"CARRY": [Named("tenant")]}
    assert check_tenants() == []
    settings.SIGNALBUS = {"CARRY": ["no_such_module.Carrier"]}
    assert check_tenants() == []  # check_settings() tells of it


def test_projects_without_tenants_get_no_warning():
    """Most projects have none."""
    assert check_tenants() == []


class Cursor:
    """A cursor that knows which schemas exist."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def execute(self, sql, params):
        """Look a schema up."""
        self.found = params[0] in {"public", "alpha"}

    def fetchone(self):
        """Return what was found."""
        return (1,) if self.found else None


class Tenant:
    """As django-tenants has it."""

    def __init__(self, schema_name):
        self.schema_name = schema_name


class Connection:
    """A connection with the methods of django-tenants."""

    def __init__(self):
        self.set_schema("public")
        self.cursor = Cursor

    def set_schema(self, schema_name):
        """Select a schema."""
        self.set_tenant(Tenant(schema_name))

    def set_tenant(self, tenant):
        """Select a tenant's schema."""
        self.tenant = tenant
        self.schema_name = tenant.schema_name


@pytest.fixture
def connection(monkeypatch):
    """Use a connection of django-tenants for the default database."""
    connection = Connection()
    monkeypatch.setattr(type(connections), "__getitem__", lambda self, alias: {"default": connection}[alias])
    return connection


def test_the_schema_of_a_tenant_is_restored(connection):
    """Afterwards the former tenant is selected again, with all its fields."""
    carrier = TenantSchema()
    before = Tenant("beta")
    connection.set_schema("alpha")
    value = carrier.capture()
    connection.set_tenant(before)
    with carrier.restore(value):
        assert connection.schema_name == "alpha"
    assert connection.tenant is before
    assert carrier.capture() == "beta"


def test_a_schema_that_is_gone_is_an_error(connection):
    """Otherwise PostgreSQL would look for the tables in the public schema, and find another row."""
    carrier = TenantSchema()
    with pytest.raises(SignalBusError, match=r"schema 'gone' .* does not exist any more"), carrier.restore("gone"):
        pytest.fail("restored")
    assert connection.schema_name == "public"
