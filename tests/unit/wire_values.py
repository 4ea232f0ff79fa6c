"""Shared by the tests of the codec: values that travel, values that do not, and an equality that compares types."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import ipaddress
import math
import pathlib
import re
import uuid
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from django.apps import apps
from django.db.models import Model
from django.http import QueryDict
from django.utils.datastructures import MultiValueDict
from hypothesis import strategies as st

from signalbus.wire import codec
from tasks.admissions.models import Cohort

from .wire_app import models

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from signalbus.wire.values.references import Reference


def saved(model: type[Model], **values: Any) -> Any:
    """Make an instance as if it had been loaded."""
    instance = model(**values)
    instance._state.adding = False
    instance._state.db = "default"
    return instance


def encode(sender: object, payload: Mapping[str, object], **options: Any) -> str:
    """Write a payload, and give the text alone."""
    return codec.encode(sender, payload, **options)[0]


def rows(references: Iterable[Reference]) -> Mapping[Reference, Model]:
    """Find every requested row."""
    return {reference: saved(apps.get_model(reference.label), pk=reference.pk) for reference in references}


def opened(value: Any) -> Any:
    """Return what a container holds beside its items; any other value as it is."""
    if isinstance(value, collections.deque):
        return [list(value), value.maxlen]
    return [dict(value.lists()), vars(value)] if isinstance(value, MultiValueDict) else value


def same(one: Any, two: Any) -> bool:
    """Return whether two values are equal and of the same types, at every level."""
    if type(one) is not type(two):
        return False
    one, two = opened(one), opened(two)
    match one:
        case Model():
            return same(one.pk, two.pk)
        case dict():
            return list(one) == list(two) and all(same(one[key], two[key]) for key in one)
        case list() | tuple():
            return len(one) == len(two) and all(map(same, one, two))
        case set() | frozenset():
            return len(one) == len(two) and all(any(same(item, other) for other in two) for item in one)
        case dt.datetime() | dt.time() | dt.timezone() | float() | complex() | Decimal():
            return repr(one) == repr(two)
        case uuid.UUID():
            return one == two and one.is_safe is two.is_safe
    if dataclasses.is_dataclass(one) and not isinstance(one, type):
        return all(same(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(one))
    return bool(one == two)


zones = (
    st.sampled_from(["UTC", "Europe/Madrid", "America/Caracas", "Asia/Kolkata"]).map(ZoneInfo)
    | st.just(dt.UTC)
    | st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone)
    | st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)), st.text(max_size=5))
)
any_text = (
    st.text(max_size=8)
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["$ref", "$", "\x00", "\ud800", "\ud83d\ude00", "\udc00\ud800", "é\ud83d\ude00", "x\ny"])
)
# One value of each of the standard library's types that travel by a name.
library_leaves: list[Any] = [
    pathlib.PurePosixPath("a/é\udcff"),
    pathlib.Path("/tmp/x"),
    pathlib.PureWindowsPath("c:\\x"),
    ipaddress.ip_address("10.0.0.1"),
    ipaddress.ip_address("fe80::1%eth0"),
    ipaddress.ip_interface("10.0.0.1/24"),
    ipaddress.ip_interface("fe80::1/64"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("fe80::/10"),
    Fraction(-2, 3),
    range(10, -5, -3),
    -0.0j,
    re.compile("a+é", re.IGNORECASE | re.VERBOSE),
    re.compile(rb"\xff", re.DOTALL),
    ZoneInfo("Europe/Madrid"),
    dt.UTC,
    dt.timezone(dt.timedelta(hours=2), "here"),
]


def multi_value_dict(lists: dict[str, list[Any]]) -> Any:
    """Make the parsed data of a form."""
    return MultiValueDict(lists)


def query_dict(mutable: bool, lists: dict[str, list[Any]]) -> QueryDict:
    """Make the data of a form."""
    result = QueryDict(mutable=True)
    for key, values in lists.items():
        result.setlist(key, values)
    result._mutable = mutable
    return result


hashable_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([63, 1000, 14281]).map(lambda bits: -(2**bits))
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text
    | st.binary(max_size=20)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.sampled_from([Decimal("1E+20000000"), Decimal("-0.00"), Decimal("1E-400")])
    | st.uuids()
    | st.just(uuid.uuid1())
    | st.dates()
    | st.datetimes(timezones=st.none() | zones, allow_imaginary=True)
    | st.builds(dt.datetime.replace, st.datetimes(timezones=st.none() | zones), fold=st.integers(0, 1))
    | st.times(timezones=st.none() | zones)
    | st.timedeltas()
    | st.sampled_from([*models.Size, models.Plain.Inner.ONE, *models.Colour, *Cohort.Stage, models.FrozenDict.Nested.N])
    | st.sampled_from([models.Rights(0), models.Rights.READ, models.Rights.READ | models.Rights.WRITE, models.Bits(7)])
    | st.sampled_from([Cohort, models.Thing, models.ThingProxy])
    | st.sampled_from(library_leaves)
    | st.ip_addresses()
    | st.fractions()
    | st.integers(1, 9).map(lambda pk: saved(Cohort, pk=pk))
    | st.uuids().map(lambda pk: saved(models.Tagged, pk=pk))
    | any_text.filter(bool).map(lambda pk: saved(models.Named, pk=pk))
    | st.tuples(st.integers(0, 2**31), st.integers(-9, 9)).map(lambda pk: saved(models.Line, pk=pk))
    | st.integers(1, 9).map(lambda pk: saved(models.ThingProxy, pk=pk))
)


@st.composite
def leaf(draw):
    """Draw a value without parts, by a name, because the list is too long for Hypothesis' messages."""
    return draw(hashable_leaves)


hashables = st.recursive(
    leaf(),
    lambda inner: (
        st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(inner, max_size=3)
        | st.builds(models.Frozen, inner, st.lists(inner, max_size=2).map(tuple))
        | st.builds(models.FrozenDict, inner)
    ),
    max_leaves=5,
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(hashables, max_size=3)
        | st.dictionaries(any_text, inner, max_size=4)
        | st.sampled_from(["$ref", "$dict", "$tuple", "$x", "$"]).flatmap(lambda k: inner.map(lambda v: {k: v}))
        | st.builds(models.Point, inner, inner)
        | st.lists(inner, max_size=3).map(lambda items: collections.deque(items, 3))
        | st.lists(st.tuples(hashables, inner), max_size=3).map(collections.OrderedDict)
        | st.dictionaries(any_text, st.lists(inner, max_size=2), max_size=2).map(multi_value_dict)
        | st.builds(query_dict, st.booleans(), st.dictionaries(any_text, st.lists(inner, max_size=2), max_size=2))
    ),
    max_leaves=15,
)
payloads = st.dictionaries(any_text, values, max_size=4)
refused_leaves = st.sampled_from(
    [math.nan, math.inf, Decimal("NaN"), object(), {1: 2}, len, models.nameless, bytearray(b"x")]
)
mixed_payloads = st.dictionaries(
    any_text, st.recursive(values | refused_leaves, lambda inner: st.lists(inner, max_size=3)), max_size=4
)
