"""Make a sender and a payload for each shape that a survey of 59 projects found.

A worker makes each shape again, from the rows of the same database, to compare it with what arrived.
"""

from __future__ import annotations

import collections
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Model, QuerySet
from django.db.models.fields.files import FieldFile
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy

from signalbus import Snapshot
from tasks.admissions.models import Academy, Cohort

from .models import Upload
from .registered import CourseData, Line, Order, Point, TrackingEvent, Version

if TYPE_CHECKING:
    from collections.abc import Callable

    Shape = Callable[[], tuple[Any, dict[str, Any]]]

NOON = datetime(2026, 1, 2, 12, tzinfo=ZoneInfo("Europe/Madrid"))


class CohortView:
    """A class that stands for the view that sends."""


def services() -> None:
    """A function that sends."""


def academy() -> Academy:
    """Return the first row."""
    return Academy.objects.get(slug="one")


def deleted() -> Academy:
    """Return an instance whose row is gone."""
    return Academy(name="Gone", slug="gone")


def money() -> Any:
    """Return an amount of django-money."""
    from djmoney.money import Money

    return Money(Decimal("9.90"), "EUR")


def phone() -> Any:
    """Return a number of django-phonenumber-field."""
    from phonenumber_field.phonenumber import PhoneNumber

    return PhoneNumber.from_string("+34 911 23 45 67")


def number() -> Any:
    """Return a scalar and an array of numpy."""
    import numpy as np

    return [np.float64(0.1), np.arange(6, dtype="i4").reshape(2, 3), np.datetime64("2026-01-02")]


def query(text: str) -> QueryDict:
    """Return the data of a form."""
    return QueryDict(text)


def cleaned_data() -> dict[str, Any]:
    """Return a form's data, in which a row may be."""
    return {"academy": academy(), "kickoff": date(2026, 1, 2), "price": Decimal("1.50"), "tags": ["a"], "note": ""}


SHAPES: dict[str, Shape] = {
    "instance": lambda: (Academy, {"instance": academy(), "created": True}),
    "plain values": lambda: (Academy, {"text": "é\x00", "number": 2**70, "ratio": 0.1, "day": date(2026, 1, 2)}),
    "dates and times": lambda: (None, {"at": NOON, "span": timedelta(1, 2, 3), "naive": datetime(2026, 1, 2)}),
    "user": lambda: (Cohort, {"user": User.objects.get()}),
    "lazy user": lambda: (Cohort, {"user": SimpleLazyObject(User.objects.get)}),
    "anonymous user": lambda: (Cohort, {"user": AnonymousUser()}),
    "sender is an instance": lambda: (academy(), {"by": "form"}),
    "sender is a view's class": lambda: (CohortView, {"by": "view"}),
    "sender is a text": lambda: ("admissions.cohort", {"by": "text"}),
    "sender is a function": lambda: (services, {"by": "function"}),
    "rows": lambda: (Academy, {"academies": list(Academy.objects.order_by("pk"))}),
    "queryset": lambda: (Academy, {"academies": Academy.objects.order_by("pk")}),
    "cleaned data": lambda: (Academy, {"data": cleaned_data()}),
    "json": lambda: (None, {"data": {"$ref": [1, {"b": None}], "c": [True, 1.5, ""]}}),
    "form": lambda: (None, {"post": query("name=ann&tag=a&tag=b"), "more": MultiValueDict({"a": ["1", "2"]})}),
    "file": lambda: (Upload, {"document": Upload.objects.get().document}),
    "model class": lambda: (None, {"model": Cohort}),
    "choices": lambda: (Cohort, {"stage": Cohort.Stage.STARTED, "label": str(gettext_lazy("Yes"))}),
    "snapshot": lambda: (Academy, {"instance": Snapshot(academy())}),
    "instance without a row": lambda: (Academy, {"instance": deleted()}),
    "openedx data": lambda: (None, {"course": CourseData("c1", NOON, (User.objects.get(), academy()))}),
    "event object": lambda: (TrackingEvent, {"event": TrackingEvent("opened", NOON, {"welcome", "b"})}),
    "pydantic model": lambda: (
        None,
        {"order": Order(number=1, placed_at=NOON.astimezone(UTC), lines=[Line(sku="a", price=Decimal("1.50"))])},
    ),
    "msgspec struct": lambda: (None, {"places": {"home": Point(1.5, 2.0)}}),
    "named tuple": lambda: (None, {"versions": [Version(1), Version(2, 5)]}),
    "money": lambda: (None, {"prices": {"total": money()}}),
    "phone number": lambda: (None, {"phones": [phone()]}),
    "numpy": lambda: (None, {"numbers": number()}),
    "addresses": lambda: (None, {"client": ip_address("2001:db8::1"), "allowed": [ip_network("10.0.0.0/8")]}),
    "paths": lambda: (None, {"path": Path("/srv/é"), "parts": collections.deque([1], 3)}),
    "patterns and ranges": lambda: (None, {"pattern": re.compile("a+", re.IGNORECASE), "pages": range(1, 9, 2)}),
    "numbers": lambda: (None, {"share": Fraction(1, 3), "point": 1 + 2j, "id": UUID(int=7), "zone": NOON.tzinfo}),
    "ordered": lambda: (None, {"rows": collections.OrderedDict([((1, 2), "a"), (3, {"b"})]), "raw": b"\xff"}),
}


def difference(sent: Any, arrived: Any) -> str:
    """Return what is different between the values that were sent and those that arrived; nothing if they are equal."""
    one, other = comparable(sent), comparable(arrived)
    return "" if one == other else f"{one!r} arrived as {other!r}"


def comparable(value: Any) -> Any:
    """Return a value with its type in a form whose equality compares all that travels of it."""
    if isinstance(value, SimpleLazyObject):
        return comparable(User.objects.get(pk=value.pk))  # a row arrives unwrapped
    if isinstance(value, Snapshot):
        return comparable(value.instance)
    if isinstance(value, QuerySet):
        return comparable(list(value))
    if isinstance(value, FieldFile):
        return (type(value), value.name, value.instance, value.storage)
    if isinstance(value, Model):
        return (type(value), [comparable(getattr(value, each.attname)) for each in value._meta.concrete_fields])
    if isinstance(value, MultiValueDict):
        return (type(value), dict(value.lists()))
    if isinstance(value, dict):
        return (type(value), [(comparable(key), comparable(item)) for key, item in value.items()])
    if isinstance(value, list | tuple | collections.deque):
        return (type(value), [comparable(item) for item in value])
    if hasattr(value, "tobytes"):  # numpy's
        return (type(value), value.dtype, value.shape, value.tobytes())
    return (type(value), value)
