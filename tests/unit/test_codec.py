"""The codec: values arrive equal and of the same types, or are refused with the place and the remedy."""

from __future__ import annotations

import _thread
import collections
import datetime as dt
import enum
import io
import json
import os
import random
import socket
import sys
import threading
import types
import uuid
from contextlib import suppress
from dataclasses import dataclass, make_dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import freezegun
import pytest
import time_machine
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.db import DatabaseError
from django.db.models import Value as V
from django.db.models.functions import Concat
from django.http import HttpRequest, QueryDict
from django.test import modify_settings
from django.utils.datastructures import MultiValueDict
from django.utils.functional import SimpleLazyObject, lazy
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy, override
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from signalbus.exceptions import Garbage, MissingRow, PayloadError, TextError, TooLarge, UnknownClass
from signalbus.wire import codec
from signalbus.wire.codec import decode
from signalbus.wire.library_types import django_types, standard_types
from signalbus.wire.values.references import Reference, Snapshot
from tasks.admissions.models import Academy, Cohort

from .wire_app import models
from .wire_values import encode, library_leaves, mixed_payloads, payloads, rows, same, saved

if TYPE_CHECKING:
    from collections.abc import Iterable

FUZZ = int(os.environ.get("SIGNALBUS_FUZZ", "20000"))
# Twice as many examples as the profile says, and more in `make fuzz`.
thorough = settings(
    max_examples=min(settings().max_examples * FUZZ // 10_000, 10_000),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.fixture(scope="module", autouse=True)
def wire_app():
    """Install the app that the test models, enumerations and dataclasses belong to."""
    with modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"}):
        yield


def travel(value: Any, sender: object = None) -> Any:
    """Send one value and receive it."""
    return decode(encode(sender, {"value": value}), rows)[1]["value"]


def no_rows(references: Iterable[Reference]) -> Any:
    raise AssertionError(f"nothing to fetch, yet asked for {references}")


# What travels


@thorough
@given(payloads)
def test_a_value_arrives_equal_and_of_the_same_type(payload):
    """This holds for every listed type, anywhere in a payload."""
    sender, arrived = decode(encode(None, payload), rows)

    assert sender is None
    assert same(payload, arrived)


@thorough
@given(mixed_payloads)
def test_a_payload_arrives_equal_or_is_refused(payload):
    """A value that cannot arrive equal raises a PayloadError, and no other error."""
    try:
        text = encode(None, payload)
    except PayloadError:
        return
    assert same(payload, decode(text, rows)[1])


@thorough
@given(payloads)
def test_a_text_is_ascii_json(payload):
    """Any tool can read a payload, and no database refuses its characters."""
    text = encode(None, payload)

    assert text.isascii()
    assert "\x00" not in text
    json.loads(text)


def test_plain_json_is_written_as_it_is():
    """JSON's own types cost nothing and are readable."""
    text = encode("x", {"a": [1, 2.5, None, True, "y", {"b": "é"}]})

    assert text == '["x",{"a":[1,2.5,null,true,"y",{"b":"\\u00e9"}]}]'


@pytest.mark.parametrize(
    "zone",
    [dt.UTC, ZoneInfo("Europe/Madrid"), dt.timezone(dt.timedelta(hours=2)), dt.timezone(dt.timedelta(0), "Zulu")],
)
@pytest.mark.parametrize("fold", [0, 1])
def test_a_datetime_keeps_zone_and_fold(zone, fold):
    """The repeated hour stays the one that was meant, with the rules of its zone."""
    moment = dt.datetime(2026, 10, 25, 2, 30, 1, 999999, tzinfo=zone, fold=fold)

    arrived = travel(moment)

    assert repr(moment) == repr(arrived)
    assert (moment.utcoffset(), type(zone)) == (arrived.utcoffset(), type(arrived.tzinfo))


def test_a_zone_without_the_cache_travels():
    """Two ZoneInfo objects of one name are the same zone."""
    moment = dt.datetime(2026, 7, 1, tzinfo=ZoneInfo.no_cache("Europe/Madrid"))

    assert moment == travel(moment)


def test_lazy_and_safe_texts_arrive_as_text():
    """A translation is made in the sender's language; a safe text arrives as a plain one."""
    with override("es"):
        arrived = travel([gettext_lazy("Yes"), mark_safe("<b>"), mark_safe("é\ud800")])

    assert same([str(override("es") and "Sí"), "<b>", "é\ud800"], arrived)


@pytest.mark.parametrize("zone", [None, dt.UTC, ZoneInfo("Europe/Madrid")])
@pytest.mark.parametrize("stop", [freezegun.freeze_time, partial(time_machine.travel, tick=False)])
def test_datetimes_of_a_frozen_clock_arrive_as_ordinary_ones(stop, zone):
    """No substitute type of freezegun or time-machine reaches a receiver."""
    with stop("2026-10-25 00:30:01.5+00:00"):
        left = [dt.datetime.now(zone), dt.date.today(), dt.datetime.now().date(), dt.datetime.now(dt.UTC).timetz()]
        arrived = travel(left)
    arrived_later = travel(left)

    assert left == arrived == arrived_later
    assert [type(value) for value in arrived] == [dt.datetime, dt.date, dt.date, dt.time]
    assert [type(value) for value in arrived_later] == [dt.datetime, dt.date, dt.date, dt.time]


def test_the_local_zone_of_a_frozen_clock_is_a_fixed_offset():
    """freezegun's ``astimezone()`` returns a zone of dateutil, Python's own an offset."""
    with freezegun.freeze_time("2026-10-25 00:30:01"):
        left = dt.datetime.now().astimezone()
        arrived = travel(left)

    assert (left, dt.timezone) == (arrived, type(arrived.tzinfo))


def test_other_subclasses_of_datetime_are_refused():
    """A user's own subclass would arrive as another type."""
    with freezegun.freeze_time("2026-10-25"), pytest.raises(PayloadError, match="fromisoformat"):
        travel(MomentSubclass(2026, 1, 1))


def test_enum_members_arrive_as_the_same_objects():
    """An alias arrives as its member."""
    assert travel(models.Size.BIG) is models.Size.LARGE
    assert travel(models.Size.SMALL) is models.Size.SMALL
    assert travel(Cohort.Stage.ENDED) is Cohort.Stage.ENDED


def test_flags_keep_bits_without_a_name():
    """A combination of flags travels as its bits."""
    assert models.Bits(9) == travel(models.Bits(9))


def test_a_dict_that_looks_like_a_tag_arrives_as_a_dict():
    """No payload can pass for a tag, whatever its keys."""
    for tag in ("$ref", "$dict", "$str", "$", "$unknown"):
        assert {tag: ["admissions.Cohort", 1]} == travel({tag: ["admissions.Cohort", 1]})
        assert {tag: {tag: {tag: 1}}, "x": 1} == travel({tag: {tag: {tag: 1}}, "x": 1})


def test_the_order_of_keys_is_kept():
    """A dict arrives in the order in which it was filled."""
    assert list(travel({"b": 1, "a": 2, "\ud83d\ude00": 3, "c": 4})) == ["b", "a", "\ud83d\ude00", "c"]


# Model instances, querysets, snapshots


def test_an_instance_travels_as_a_reference():
    """The receiver gets the present row, by class and key."""
    asked: list[set[Reference]] = []

    def fetch(references):
        asked.append(set(references))
        return rows(references)

    cohort, proxy = saved(Cohort, pk=7), saved(models.ThingProxy, pk=7)
    payload = {"a": cohort, "b": [{"c": (cohort, proxy)}], "d": {saved(Cohort, pk=8)}}

    _, arrived = decode(encode(cohort, payload), fetch)

    assert same(payload, arrived)
    assert [
        {Reference("admissions.Cohort", 7), Reference("admissions.Cohort", 8), Reference("wire_app.ThingProxy", 7)}
    ] == asked


def test_no_row_is_loaded_without_references():
    """A payload without rows makes no query, even if its texts look like references."""
    decode(encode("x", {"$ref": ["admissions.Cohort", 1], "b": ('"$ref"', {"$ref": 1})}), no_rows)


@pytest.mark.parametrize(
    ("model", "given_pk", "pk"),
    [
        (Cohort, "7", 7),
        (models.Named, 7, "7"),
        (models.Named, models.Colour.RED, "red"),
        (models.Named, mark_safe("x"), "x"),
        (models.Tagged, "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678123456781234567812345678")),
        (models.Line, ("1", 2), (1, 2)),
        (models.SpecialThing, "3", 3),
    ],
)
def test_a_key_takes_the_type_of_its_field(model, given_pk, pk):
    """An instance with a key of another type names the same row."""
    text = encode(None, {"x": saved(model, pk=given_pk)})

    asked: set[Reference] = set()

    def fetch(references):
        asked.update(references)
        return rows(references)

    decode(text, fetch)

    ((key, kind),) = [(reference.pk, type(reference.pk)) for reference in asked]
    assert (pk, type(pk)) == (key, kind)


def test_the_lazy_user_of_a_request_travels():
    """request.user is a wrapper, and arrives as the user."""
    arrived = travel(SimpleLazyObject(lambda: saved(User, pk=3)))

    assert same(saved(User, pk=3), arrived)


def test_a_queryset_arrives_as_its_rows():
    """A queryset travels as the list of its rows."""
    queryset = Cohort.objects.all()
    queryset._result_cache = [saved(Cohort, pk=1), saved(Cohort, pk=2)]
    values = Cohort.objects.values("pk")
    values._result_cache = [{"pk": 1}, {"pk": 2}]
    pairs = Cohort.objects.values_list("pk", "slug")
    pairs._result_cache = [(1, "a"), (2, "b")]

    assert same([saved(Cohort, pk=1), saved(Cohort, pk=2)], travel(queryset))
    assert same([{"pk": 1}, {"pk": 2}], travel(values))
    assert same([(1, "a"), (2, "b")], travel(pairs))


def test_a_database_error_is_raised_unchanged():
    """Code that retries a deadlock must see it."""
    queryset = Cohort.objects.all()
    queryset._fetch_all = lambda: (_ for _ in ()).throw(DatabaseError("deadlock"))  # type: ignore[method-assign]

    with pytest.raises(DatabaseError, match="deadlock"):
        encode(None, {"x": queryset})


def test_a_snapshot_arrives_as_an_instance_with_the_same_values():
    """It makes no query: the values are those of the send."""
    thing = saved(
        models.Thing,
        pk=5,
        name="é",
        document="a/b.txt",
        heat=models.Temperature(300),
        raw=memoryview(b"\x00\xff"),
        extra={"a": (1, {2}), "b": Decimal("1.0")},
    )

    _, payload = decode(encode(models.Thing, {"instance": Snapshot(thing)}), no_rows)
    arrived = payload["instance"]

    assert same(thing, arrived)
    assert (thing.name, thing.heat, thing.raw, thing.extra) == (arrived.name, arrived.heat, arrived.raw, arrived.extra)
    assert (arrived.document.name, arrived._state.db, arrived._state.adding) == ("a/b.txt", "default", False)
    assert type(arrived) is models.Thing


def test_a_snapshot_of_an_unsaved_instance_is_unsaved():
    """pre_save sends an instance without a row."""
    arrived = travel(Snapshot(models.ThingProxy(name="new")))

    assert (True, None, "new", models.ThingProxy) == (arrived._state.adding, arrived.pk, arrived.name, type(arrived))


def test_a_snapshot_keeps_deferred_fields_deferred():
    """A deferred field does not travel, and is not loaded."""
    thing = models.Thing.from_db("default", ["id", "name"], [1, "x"])

    arrived = travel(Snapshot(thing))

    assert thing.get_deferred_fields() == arrived.get_deferred_fields()


def test_an_expression_is_a_deferred_field():
    """``save()`` would resolve an expression; the other values of the row travel."""
    thing = saved(models.Thing, pk=1, name=Concat("name", V("x")), document=V("a.txt"), extra={"a": 1})

    arrived = travel(Snapshot(thing))

    assert arrived.get_deferred_fields() == {"name", "document"}
    assert (arrived.pk, arrived.extra) == (1, {"a": 1})


def test_a_database_default_is_a_deferred_field():
    """``pre_save`` sees ``db_default`` fields before the database has filled them."""
    arrived = travel(Snapshot(models.Dated(note="x")))

    assert arrived.get_deferred_fields() == {"made_at"}
    assert (arrived.note, arrived.pk, arrived._state.adding) == ("x", None, True)


def test_a_key_that_the_database_will_make_is_none():
    """A deferred key would have to be loaded by itself."""
    arrived = travel(Snapshot(models.Dated(pk=V(1) + V(1), note="x")))

    assert (arrived.pk, arrived.note) == (None, "x")


# Instances without a row


@pytest.mark.parametrize(
    "instance",
    [
        models.Thing(name="new"),
        models.Thing(pk=7, name="new"),
        models.ThingProxy(name="new"),
        models.Tagged(),
        models.Line(order=1),
        models.Dated(note="x"),
    ],
)
def test_an_unsaved_instance_arrives_unsaved(instance):
    """It travels with its values, as a receiver in the sender's process would see it."""
    _, arrived = decode(encode(instance, {"x": [instance], "lazy": SimpleLazyObject(lambda: instance)}), no_rows)
    sender, _ = decode(encode(instance, {}), no_rows)

    for each in (*arrived["x"], arrived["lazy"], sender):
        assert type(each) is type(instance)
        assert (each.pk, each._state.adding, each._state.db) == (instance.pk, True, None)
        assert getattr(each, "name", None) == getattr(instance, "name", None)


def test_a_deleted_instance_arrives_with_its_values():
    """``delete()`` removes the key, so there is no row to refer to."""
    thing = saved(models.Thing, name="gone")

    arrived = decode(encode(None, {"x": thing}), no_rows)[1]["x"]

    assert (arrived.pk, arrived.name, arrived._state.adding) == (None, "gone", False)


def test_an_instance_with_half_a_composite_key_travels_as_values():
    """All parts of a key name a row."""
    arrived = decode(encode(None, {"x": saved(models.Line, order=1)}), no_rows)[1]["x"]

    assert arrived.pk == (1, None)


# Values beside references


def test_the_sent_values_replace_a_row_that_is_gone():
    """``on_missing="snapshot"``: the receiver gets them nested, in lists and as the sender."""
    thing = saved(models.Thing, pk=5, name="was")
    text = encode(thing, {"a": thing, "b": [{"c": thing}]}, snapshots=True)

    sender: Any
    sender, arrived = decode(text, lambda _references: {}, snapshots=True)

    for each in (sender, arrived["a"], arrived["b"][0]["c"]):
        assert (type(each), each.pk, each.name, each._state.adding) == (models.Thing, 5, "was", False)


def test_an_existing_row_is_preferred_to_the_sent_values():
    """The sent values are only for a row that is gone."""
    thing = saved(models.Thing, pk=5, name="was")

    arrived = decode(encode(None, {"a": thing}, snapshots=True), rows, snapshots=True)[1]["a"]

    assert arrived.name == "thing"


def test_a_receiver_without_the_option_gets_a_missing_row():
    """The sent values are only for receivers with ``on_missing="snapshot"``."""
    thing, other = saved(models.Thing, pk=5), saved(models.Thing, pk=6)
    text = encode(None, {"a": thing, "b": Snapshot(other), "c": [other]}, snapshots=True)

    with pytest.raises(MissingRow) as caught:
        decode(text, lambda _references: {})

    assert caught.value.what == ("wire_app.Thing 5", "wire_app.Thing 6")


def test_a_missing_row_without_sent_values_is_an_error():
    """The sender did not know of a receiver with the option."""
    text = encode(None, {"a": saved(models.Thing, pk=5)})

    with pytest.raises(MissingRow):
        decode(text, lambda _references: {}, snapshots=True)


def test_the_error_of_a_snapshot_value_names_the_receivers_option():
    """The sender does not know the option; the error names it, and the value's place."""
    thing = saved(models.Thing, pk=1, extra=[object()])

    with pytest.raises(PayloadError, match=r'^x\.extra\[0\]: .*on_missing="snapshot"'):
        encode(None, {"x": thing}, snapshots=True)
    assert same(saved(models.Thing, pk=1), travel(thing))


# What a receiver asks to be fetched along


def test_relations_are_loaded_by_payload_key():
    """All rows under a key get its relations; a row that is elsewhere too gets them as well."""
    asked: dict[Reference, Any] = {}

    def fetch(references):
        asked.update(references)
        return rows(references)

    payload = {"a": saved(Cohort, pk=1), "b": [saved(Cohort, pk=2), {"c": saved(Cohort, pk=3)}], "d": None}
    text = encode(saved(Cohort, pk=1), {**payload, "e": saved(Cohort, pk=4)})
    decode(text, fetch, related={"a": ("x",), "b": ("y", "z"), "d": ("x",), "gone": ("x",)})

    assert {reference.pk: set(relations) for reference, relations in asked.items()} == {
        1: {"x"},
        2: {"y", "z"},
        3: {"y", "z"},
        4: set(),
    }


# Versions


def test_a_payload_has_the_oldest_version_that_reads_it():
    """An older worker reads what it can, and parks the rest."""
    thing, new = saved(models.Thing, pk=1), models.Thing()

    assert codec.encode(thing, {"x": [thing, new, Snapshot(thing)]})[1] == "1"
    assert codec.encode(None, {"x": [thing]}, snapshots=True)[1] == "2"
    assert codec.encode(None, {"x": [new]}, snapshots=True)[1] == "1"
    assert codec.encode(new, {})[1] == "2"


def test_a_snapshot_is_read_by_another_version_of_its_model():
    """A removed field is left out, a new field is deferred."""
    text = encode(None, {"x": Snapshot(models.Thing(name="x"))})
    text = text.replace('"name":"x"', '"old_name":"x"')

    arrived = decode(text, no_rows)[1]["x"]

    assert "name" in arrived.get_deferred_fields()


def test_a_snapshot_of_a_child_has_the_fields_of_its_parent():
    """Multi-table inheritance makes one instance."""
    child = saved(models.SpecialThing, id=1, thing_ptr_id=1, name="child")

    assert (travel(Snapshot(child)).name, travel(Snapshot(child)).pk) == ("child", 1)


def test_a_snapshot_from_an_unknown_database_has_no_database():
    """A worker may have other databases than the sender."""
    thing = saved(models.Thing, pk=1)
    thing._state.db = "replica7"

    assert travel(Snapshot(thing))._state.db is None


# Dataclasses


def test_a_dataclass_is_restored_without_its_init():
    """It was valid when it was sent, so no constructor runs again."""
    points = [models.Point(1, [2]), models.Frozen("a", (1,)), models.FrozenDict({"x": 1})]
    constructed = models.Point.constructed

    arrived = travel(points)

    assert same(points, arrived)
    assert constructed == models.Point.constructed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('"y":0', '"z":0'), models.Point(1, 0)),
        ((',"y":0', ""), models.Point(1, 0)),
    ],
)
def test_a_dataclass_is_read_by_another_version_of_itself(change, expected):
    """A removed field is left out, a new field takes its default."""
    text = encode(None, {"x": models.Point(1, 0)}).replace(*change)

    assert expected == decode(text, no_rows)[1]["x"]


def test_a_dataclass_with_a_new_required_field_is_unknown():
    """A field without value and default cannot be filled."""
    text = encode(None, {"x": models.Point(1, 0)}).replace('"x":1,', "")

    with pytest.raises(UnknownClass, match="no x"):
        decode(text, no_rows)


# What is refused


class TextSubclass(str):
    __slots__ = ()


class IntSubclass(int):
    pass


class MomentSubclass(dt.datetime):
    pass


class Zone(dt.tzinfo):
    def utcoffset(self, moment):
        return dt.timedelta(0)

    tzname = dst = utcoffset


class Pair(NamedTuple):
    a: int
    b: int


class OutsideEnum(enum.Enum):
    A = 1


@dataclass
class OutsideData:
    a: int


class FakeInt:
    __class__ = int  # type: ignore[assignment]


def point_with_more() -> models.Point:
    point = models.Point(1, 2)
    point.z = 3  # type: ignore[attr-defined]
    return point


def point_with_less() -> models.Point:
    point = models.Point(1, 2)
    del point.x
    return point


def iter_nothing() -> Any:
    yield


def fails() -> Any:
    return 1 / 0


REFUSED = {
    "lock": (threading.Lock, "_thread.lock"),
    "rlock": (threading.RLock, "values that the receiver needs"),
    "open file": (lambda: io.StringIO("x"), "_io.StringIO"),
    "nameless function": (lambda: models.nameless, "call"),
    "function": (lambda: models.plain_function, "call"),
    "method": (lambda: [].append, "call"),
    "module": (lambda: json, "send its name"),
    "generator": (iter_nothing, "send list"),
    "object": (object, "values that the receiver needs"),
    "class": (lambda: models.Plain, "dotted name"),
    "enum class": (lambda: models.Size, "dotted name"),
    "abstract model": (lambda: models.Base, "not a model of an installed app"),
    "exception": (lambda: ValueError("x"), "str(error)"),
    "request": (HttpRequest, "request.user"),
    "manager": (lambda: Cohort.objects, r"manager.all()"),
    "file": (lambda: ContentFile(b"x", "x"), "send its name"),
    "unsaved file": (lambda: models.Thing(document=ContentFile(b"x", "x")).document, "save it first"),
    "bytearray": (lambda: bytearray(b"x"), "bytes(value)"),
    "memoryview": (lambda: memoryview(b"x"), "bytes(value)"),
    "nan": (lambda: float("nan"), "None"),
    "infinity": (lambda: float("-inf"), "None"),
    "decimal nan": (lambda: Decimal("sNaN"), "finite"),
    "huge int": (lambda: 10**4300, "4300 digits"),
    "huge negative int": (lambda: -(10**5000), "4300 digits"),
    "default dict": (lambda: collections.defaultdict(int), "dict(value)"),
    "query dict with odd keys": (lambda: MultiValueDict({1: ["a"]}), "str(key)"),
    "named tuple": (lambda: Pair(1, 2), "_asdict()"),
    "str subclass": (lambda: TextSubclass("x"), "str(value)"),
    "int subclass": (lambda: IntSubclass(1), "int(value)"),
    "datetime subclass": (lambda: MomentSubclass(2026, 1, 1), "fromisoformat"),
    "other zone": (lambda: dt.datetime(2026, 1, 1, tzinfo=Zone()), "ZoneInfo"),
    "pretender": (FakeInt, "FakeInt"),
    "no key": (lambda: saved(Cohort, pk="seven"), "no primary key"),
    "kind of anonymous user": (models.Visitor, "Visitor"),
    "wrapped text": (lambda: SimpleLazyObject(lambda: "x"), "lazy wrapper"),
    "failing wrapper": (lambda: SimpleLazyObject(fails), "ZeroDivisionError"),
    "lazy int": (lazy(lambda: 1, int), "lazy value"),
    "failing text": (lazy(fails, str), "ZeroDivisionError"),
    "enum elsewhere": (lambda: OutsideEnum.A, "installed apps"),
    "dataclass elsewhere": (lambda: OutsideData(1), "installed apps"),
    "local dataclass": (lambda: make_dataclass("Local", ["a"])(1), ":Local: only modules of installed apps"),
    "dataclass on int": (lambda: models.Number(3), "built-in type"),
    "state beside fields": (point_with_more, "holds z beside"),
    "field without value": (point_with_less, "field x has no value"),
    "dataclass class": (lambda: models.Point, "dotted name"),
    "simple namespace": (types.SimpleNamespace, "SimpleNamespace"),
    "mapping proxy": (lambda: types.MappingProxyType({}), "mappingproxy"),
    "snapshot with a lock": (lambda: Snapshot(models.Thing(extra=_thread.allocate_lock())), "_thread.lock"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_value_is_named_with_place_and_remedy(name):
    """The error says where the value is and what to send instead; no value arrives changed."""
    make, remedy = REFUSED[name]

    with pytest.raises(PayloadError) as caught:
        encode(None, {"context": {"items": [0, {"user": make()}]}})

    assert caught.value.path.startswith("context.items[1].user")
    assert remedy in str(caught.value)
    assert str(caught.value).startswith(caught.value.path)


def test_a_socket_is_refused():
    """An open socket cannot travel."""
    with socket.socket() as connection, pytest.raises(PayloadError, match=r"socket\.socket cannot travel"):
        encode(None, {"connection": connection})


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ({"instance": object()}, "instance"),
        ({"context": {"user": {"lock": object()}}}, "context.user.lock"),
        ({"items": [0, 1, 2, {"x": object()}]}, "items[3].x"),
        ({"a": ({"b c": [object()]},)}, "a[0]['b c'][0]"),
        ({"a": models.Point(1, {"z": object()})}, "a.y.z"),
        ({"a": {1: 2}}, "a[1]"),
        ({"a": {TextSubclass("x"): 2}}, "a[TextSubclass]"),
        ({"a": {mark_safe("x"): 2}}, "a['x']"),
        ({"a": {"x" * 500: object()}}, "a." + "x" * 500),
        ({"a": {"line\nbreak": object()}}, r"a['line\nbreak']"),
        ({"a": Snapshot(models.Thing(extra=[object()]))}, "a.extra[0]"),
    ],
)
def test_the_path_names_the_place(payload, path):
    """The path reads like the expression that reaches the value."""
    with pytest.raises(PayloadError) as caught:
        encode(None, payload)

    assert path == caught.value.path


def test_the_error_of_a_value_is_the_cause():
    """The sender sees the value's own error too."""
    with pytest.raises(PayloadError) as caught:
        encode(None, {"x": [SimpleLazyObject(lambda: 1 / 0)]})

    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, models.Point, lambda v: {"$a": v}])
def test_depth_is_counted_in_containers(wrap):
    """64 nested containers of any kind travel; 65 do not."""
    value: Any = 1
    for _ in range(64):
        value = wrap(value)

    assert same(value, travel(value))
    with pytest.raises(PayloadError, match="nested deeper than 64"):
        encode(None, {"x": wrap(value)})


def test_a_reference_does_not_count_as_nesting():
    """An instance is a leaf, also with a composite key."""
    value: Any = saved(models.Line, pk=(1, 2))
    for _ in range(64):
        value = [value]

    assert same(value, travel(value))


def test_a_cycle_is_refused():
    """The limit of depth finds a container that contains itself, however often."""
    cycle: list[Any] = []
    cycle.extend([cycle, cycle])

    with pytest.raises(PayloadError, match="break the cycle"):
        encode(None, {"x": cycle})


def test_a_payload_that_grows_exponentially_is_refused_early():
    """Sixty lists that each contain the one below ten times would fill any memory."""
    value: list[Any] = ["x"]
    for _ in range(60):
        value = [value] * 10

    with pytest.raises(PayloadError, match="MAX_BYTES"):
        encode(None, {"x": value})


def test_a_stack_overflow_is_a_payload_error():
    """A higher limit may allow more than Python's stack; the error is PayloadError or TooLarge."""
    with pytest.raises(PayloadError, match="stack"):
        encode(None, {"x": nested(50_000)}, max_depth=100_000)
    with pytest.raises(TooLarge):
        decode(f'[null,{{"x":{"[" * 50_000}{"]" * 50_000}}}]', no_rows, max_depth=100_000)


def test_size_is_counted_in_bytes_of_text():
    """The limit applies to the text that travels, to the byte."""
    largest = encode(None, {"x": "y" * 100})

    assert largest == encode(None, {"x": "y" * 100}, max_bytes=len(largest))
    with pytest.raises(PayloadError, match="MAX_BYTES"):
        encode(None, {"x": "y" * 100}, max_bytes=len(largest) - 1)


def test_a_lowered_limit_of_digits_is_a_payload_error():
    """A process may allow fewer digits than Python's default."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        with pytest.raises(PayloadError):
            encode(None, {"x": 10**1000})
    finally:
        sys.set_int_max_str_digits(limit)


# What a signed, but odd text can do


def test_each_missing_row_is_named():
    """Nothing is delivered in its place."""
    text = encode(None, {"x": saved(Cohort, pk=1), "y": saved(models.Named, pk="a\nb")})

    with pytest.raises(MissingRow) as caught:
        decode(text, lambda references: {})

    assert caught.value.what == ("admissions.Cohort 1", "wire_app.Named 'a\\nb'")


def test_an_error_of_loading_rows_is_raised_unchanged():
    """An outage of the database is no fault of the text."""

    def fetch(references):
        raise DatabaseError("away")

    with pytest.raises(DatabaseError):
        decode(encode(None, {"x": saved(Cohort, pk=1)}), fetch)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ('{"$ref":["gone.Model",1]}', UnknownClass),
        ('{"$ref":["admissions.Gone",1]}', UnknownClass),
        ('{"$ref":["admissions.Cohort","seven"]}', MissingRow),
        ('{"$ref":["admissions.Cohort",9223372036854775808]}', MissingRow),
        ('{"$ref":["wire_app.Line",{"$tuple":[1,9223372036854775808]}]}', MissingRow),
        ('{"$ref":["admissions.Cohort",{"$ref":["admissions.Cohort",1]}]}', Garbage),
        ('{"$ref":["admissions.Cohort",[1]]}', (MissingRow, Garbage)),
        ('{"$ref":["nodot",1]}', Garbage),
        ('{"$ref":[1,1]}', Garbage),
        ('{"$ref":[]}', Garbage),
        ('{"$ref":null}', Garbage),
        ('{"\\u0024ref":["admissions.Cohort",1]}', Garbage),
        ('{"$row":["gone.Model",1,null,null]}', UnknownClass),
        ('{"$row":["admissions.Cohort",1,"gone",null]}', UnknownClass),
        ('{"$row":["admissions.Cohort",1,1,null]}', Garbage),
        ('{"$row":["admissions.Cohort",1]}', Garbage),
        ('{"\\u0024row":["admissions.Cohort",["admissions.Cohort",false,null,{},{}]]}', Garbage),
        ('{"$model":"gone.Model"}', UnknownClass),
        ('{"$model":1}', Garbage),
        ('{"$name":"tests.unit.wire_app.models:Plain"}', Garbage),
        ('{"$unknown":1}', Garbage),
        ('{"$":1}', Garbage),
        ('{"$tuple":{"a":1}}', Garbage),
        ('{"$set":[[]]}', Garbage),
        ('{"$set":"abc"}', Garbage),
        ('{"$frozenset":[{}]}', Garbage),
        ('{"$dict":[[1,2]]}', Garbage),
        ('{"$dict":[["a"]]}', Garbage),
        ('{"$dict":{"a":1}}', Garbage),
        ('{"$dict":[[{"$bytes":""},1]]}', Garbage),
        ('{"$bytes":"x"}', Garbage),
        ('{"$bytes":"\\u00e9"}', Garbage),
        ('{"$str":"/w=="}', Garbage),
        ('{"$decimal":"NaN"}', Garbage),
        ('{"$decimal":"x"}', Garbage),
        ('{"$decimal":1}', Garbage),
        ('{"$decimal":[1,[1],"F"]}', Garbage),
        ('{"$uuid":"x"}', Garbage),
        ('{"$uuid":["x"]}', Garbage),
        ('{"$uuid":null}', Garbage),
        ('{"$timedelta":[1]}', Garbage),
        ('{"$timedelta":[999999999999,0,0]}', Garbage),
        ('{"$date":"x"}', Garbage),
        ('{"$date":1}', Garbage),
        ('{"$datetime":["2026-01-01T00:00:00",[],0]}', Garbage),
        ('{"$datetime":["2026-01-01T00:00:00",[99999999999999],0]}', Garbage),
        ('{"$datetime":["2026-01-01T00:00:00",[0],5]}', Garbage),
        ('{"$datetime":["2026-01-01T00:00:00","Mars/Olympus",0]}', UnknownClass),
        ('{"$datetime":["2026-01-01T00:00:00","../../etc/passwd",0]}', UnknownClass),
        ('{"$datetime":["2026-01-01T00:00:00","America",0]}', UnknownClass),
        ('{"$enum":["tests.unit.wire_app.models:Size","GONE"]}', UnknownClass),
        ('{"$enum":["tests.unit.wire_app.models:Rights","x"]}', UnknownClass),
        ('{"$enum":["tests.unit.wire_app.models:Gone","A"]}', UnknownClass),
        ('{"$enum":["tests.unit.wire_app.models:Plain","A"]}', UnknownClass),
        ('{"$enum":["tests.unit.wire_app.models:Size",[]]}', (Garbage, UnknownClass)),
        ('{"$enum":["http:HTTPStatus","OK"]}', UnknownClass),
        ('{"$enum":[1,2]}', Garbage),
        ('{"$data":["tests.unit.wire_app.models:Plain",{}]}', UnknownClass),
        ('{"$data":["tests.unit.wire_app.models:Point",[]]}', Garbage),
        ('{"$data":["tests.unit.wire_app.models:Number",{}]}', (Garbage, UnknownClass)),
        ('{"$data":["tests.unit.test_codec:OutsideData",{"a":1}]}', UnknownClass),
        ('{"$data":1}', Garbage),
        ('{"$snapshot":["gone.Model",false,null,{},{}]}', UnknownClass),
        ('{"$snapshot":["admissions.Cohort",false,null,{},{"id":[]}]}', (Garbage, UnknownClass)),
        ('{"$snapshot":["admissions.Cohort"]}', Garbage),
        ("NaN", Garbage),
        ("-Infinity", Garbage),
        ("1" * 5000, Garbage),
        ("[" * 100 + "]" * 100, TooLarge),
        ("[" * 100_000 + "]" * 100_000, TooLarge),
        ('{"a":' * 100_000, (TooLarge, Garbage)),
    ],
)
def test_an_invalid_text_raises_only_known_errors(value, error):
    """A worker knows these errors, whatever a tag contains."""
    with pytest.raises(error):
        decode(f'[null,{{"value":{value}}}]', rows)


@pytest.mark.parametrize(
    "text",
    ["", "x", "null", "{}", "[]", "[null]", "[null,[]]", "[1,{}]", "[[],{}]", '[{"a":1},{}]', '[{"$bytes":""},{}]',
     '[null,{"$tuple":[]}]', "[null,{},1]", '[{"$name":1},{}]', '{"a":1,"b":{}}', "\x00", "[null,{}]x"],
)  # fmt: skip
def test_a_text_without_sender_and_payload_is_garbage(text):
    """The frame of a text is checked too."""
    with pytest.raises(Garbage):
        decode(text, no_rows)


def test_decimals_are_never_made_ints():
    """1E+20000000 is a short text, and twenty million digits as an int."""
    assert Decimal("1E+20000000") == travel(Decimal("1E+20000000"))


TAGS = ["$str", "$bytes", "$decimal", "$uuid", "$timedelta", "$date", "$datetime", "$time", "$tuple", "$set",
        "$frozenset", "$dict", "$ref", "$row", "$data", "$snapshot", "$enum", "$model", "$name", "$value",
        "$x"]  # fmt: skip
LIBRARY_NAMES = sorted({*standard_types.BY_NAME, *django_types.BY_NAME})
odd_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(
        ["", "x", "admissions.Cohort", "wire_app.Line", "wire_app.Thing", "tests.unit.wire_app.models:Point",
         "tests.unit.wire_app.models:Size", "2026-01-01", "2026-01-01T00:00:00", "UTC", "eA==", "id", "x", "0" * 32,
         *LIBRARY_NAMES]
    ),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["x", "y", "id", "name", *TAGS]), inner, max_size=3)
        | st.sampled_from(TAGS).flatmap(lambda tag: inner.map(lambda value: {tag: value}))
    ),
    max_leaves=12,
)  # fmt: skip


def read(text: str) -> None:
    """Decode a text that may contain anything."""
    with suppress(TextError, UnknownClass, MissingRow):
        decode(text, rows)
    with suppress(TextError, UnknownClass, MissingRow):
        decode(text, lambda _references: {}, snapshots=True)


@thorough
@given(odd_json, odd_json)
def test_any_json_is_read_or_refused(sender, payload):
    """No other error is raised."""
    read(json.dumps([sender, {"x": payload}]))


def one_of_each() -> list[str]:
    """Encode a value of each kind, with a class as the sender."""
    moment = dt.datetime(2026, 1, 2, tzinfo=ZoneInfo("Asia/Kolkata"))
    everything = [
        saved(Cohort, pk=1), saved(models.Line, pk=(1, 2)), Snapshot(saved(models.Thing, pk=1)), models.Point(1, (2,)),
        moment, moment.timetz(), dt.date(2026, 1, 1), dt.timedelta(1), Decimal("1.5"), b"x", {1, 2}, models.Size.LARGE,
        models.Rights.READ, Academy, "\ud800", {"$x": 1}, frozenset({"a"}), uuid.uuid1(), *library_leaves,
        collections.deque([1], 3), QueryDict("a=1&a=2"), saved(models.Thing, pk=1, document="x").document,
    ]  # fmt: skip
    texts = [encode(models.Plain, {"x": value}) for value in everything]
    return [*texts, encode(models.Plain, {"x": saved(models.Thing, pk=1)}, snapshots=True)]


def test_a_mutated_text_is_read_or_refused():
    """The text was changed anywhere, and signed again."""
    choose = random.Random(2)
    texts = one_of_each()
    pieces = ['"', "{", "}", "[", "]", ",", ":", "0", "-1", "1e9", "null", "true", "$", *(f'"{tag}":' for tag in TAGS)]
    for _ in range(FUZZ):
        text = choose.choice(texts)
        at = choose.randrange(len(text))
        read(text[:at] + choose.choice(pieces) + text[at + choose.randrange(4) :])


def parts(tree: Any) -> list[tuple[Any, Any]]:
    """List the places in a JSON tree, as containers and keys."""
    places: list[tuple[Any, Any]] = []
    for key, value in tree.items() if type(tree) is dict else enumerate(tree):
        places.append((tree, key))
        if type(value) in (dict, list):
            places += parts(value)
    return places


def test_a_text_with_exchanged_parts_is_read_or_refused():
    """A part of one text replaces a part of another, tags included."""
    choose = random.Random(3)
    texts = one_of_each()
    odd: list[Any] = [None, True, -1, 1.5, "", "x", [], {}, [None] * 5, 10**30, "\x00", {"x": 1}, [[]]]
    for _ in range(FUZZ):
        tree, other = json.loads(choose.choice(texts)), json.loads(choose.choice(texts))
        container, key = choose.choice(parts(tree))
        donor, place = choose.choice(parts(other))
        container[key] = choose.choice(odd) if choose.random() < 0.5 else donor[place]
        if type(container) is dict and choose.random() < 0.3:
            container[choose.choice(TAGS)] = container.pop(key)
        read(json.dumps(tree))


def test_decoded_messages_share_no_objects():
    """Receivers may change the values that they get."""
    text = encode("x", {"a": [1, {"b": models.Point(1)}]})

    one, two = decode(text, no_rows)[1], decode(text, no_rows)[1]
    one["a"][1]["b"].x = 2

    assert two["a"][1]["b"].x == 1
