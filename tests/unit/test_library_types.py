"""Values of libraries travel by themselves, with the real libraries; a test is skipped where its library is missing."""

from __future__ import annotations

import collections
import os
import random
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import InMemoryStorage, storages
from django.http import QueryDict
from django.test import modify_settings, override_settings
from django.utils.datastructures import MultiValueDict
from hypothesis import given
from hypothesis import strategies as st

from signalbus import codec as public
from signalbus.exceptions import Garbage, MissingRow, PayloadError, TextError, UnknownClass
from signalbus.services.redaction import HIDDEN, shown_payload
from signalbus.wire import codec, library_types
from signalbus.wire.values import registered_types

from .wire_app import models
from .wire_values import library_leaves, query_dict, rows, saved

if TYPE_CHECKING:
    from collections.abc import Iterator

# A range of more numbers than anybody can wait for, where a list must be.
ENDLESS = '{"$value":["python:range",[0,1000000000000,1]]}'
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def wire_app() -> Iterator[None]:
    """Install the app that the test models belong to."""
    with modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"}):
        yield


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Forget what a test registers."""
    yield
    registered_types.by_type.clear()
    registered_types.by_name.clear()


def travel(value: Any) -> Any:
    """Send one value in a list and receive it; a second sending must give the same text."""
    text, version = codec.encode(None, {"value": [value]})
    assert version == "6"
    arrived = codec.decode(text, rows)[1]["value"][0]
    assert type(arrived) is type(value)
    assert codec.encode(None, {"value": [arrived]})[0] == text
    return arrived


def hostile(text: str) -> Any:
    """Decode a text of one value that a key holder would not write."""
    return codec.decode(f'[null,{{"value":{text}}}]', rows)[1]["value"]


@pytest.fixture
def classes() -> Any:
    """Classes of pydantic, attrs and msgspec."""
    for name in ("pydantic", "attrs", "msgspec"):
        pytest.importorskip(name)
    from . import library_classes

    return library_classes


# pydantic, attrs, msgspec


def test_a_pydantic_model_travels_with_all_that_it_holds(classes):
    """Fields, those that were set, extra and private attributes; nothing is validated again."""
    line = classes.Line(price=Decimal("1.50"), at=datetime(2026, 1, 2, tzinfo=UTC))
    public.register(classes.Line, name="line", example=line)
    public.register(classes.Order, name="order")
    order = classes.Order(no=3, lines=[line], colour={"of": ("car",)})
    order._secret = "y"
    count = len(classes.made)

    arrived = travel(order)

    assert arrived == order
    assert arrived.model_fields_set == order.model_fields_set == {"number", "lines", "colour"}
    assert (arrived.colour, arrived._secret, arrived.lines[0].at) == ({"of": ("car",)}, "y", line.at)
    assert len(classes.made) == count
    with pytest.raises(PayloadError, match=r'codec\.register\(SubOrder, name="sub-order"\)'):
        travel(classes.SubOrder(no=1))


def test_a_pydantic_model_may_have_other_fields_on_arrival(classes):
    """A field that is new takes its default, one that is gone is left out, one without a default parks the message."""
    public.register(classes.Newer, name="newer")
    public.register(classes.Root, name="root", example=classes.Root([1]))

    arrived = hostile('{"$value":["newer",{"fields":{"a":1,"gone":2},"extra":{"x":1},"private":{"_gone":1}}]}')

    assert (arrived, arrived.model_extra, arrived._c) == (classes.Newer(a=1), None, 5)
    assert travel(classes.Root([1, 2])).root == [1, 2]
    with pytest.raises(UnknownClass, match='the type "newer": the message has no a'):
        hostile('{"$value":["newer",{"fields":{}}]}')
    with pytest.raises(TypeError):
        hostile(f'{{"$value":["newer",{{"fields":{{"a":1}},"set":{ENDLESS}}}]}}')


def test_state_beside_the_fields_is_refused(classes):
    """A cached property is computed again, anything else would be lost."""
    public.register(classes.Cached, name="cached")
    value = classes.Cached(a=1)
    assert value.double == 2
    assert travel(value).double == 2
    vars(value)["other"] = 1
    with pytest.raises(PayloadError, match="holds other beside its fields"):
        travel(value)


def test_attrs_classes_travel(classes):
    """With slots and without, frozen, with factories; not validated and not initialised again."""
    public.register(classes.Slotted, name="slotted")
    public.register(classes.FrozenAttrs, name="frozen")
    value = classes.Slotted(1, [classes.FrozenAttrs((2,))])
    count = len(classes.made)

    assert travel(value) == value
    assert len(classes.made) == count
    assert hash(travel(classes.FrozenAttrs((1, 2), 3))) == hash(classes.FrozenAttrs((1, 2), 3))
    assert hostile('{"$value":["frozen",{"a":1,"gone":2}]}') == classes.FrozenAttrs(1)
    assert hostile('{"$value":["slotted",{"a":1}]}') == classes.Slotted(1)
    with pytest.raises(UnknownClass, match="no a, which has no default"):
        hostile('{"$value":["slotted",{}]}')


def test_msgspec_structs_travel(classes):
    """Frozen ones, and those whose fields are given by name only, too."""
    public.register(classes.StructPoint, name="point")
    public.register(classes.Loose, name="loose")
    value = classes.StructPoint(x=classes.Loose(1), y=[2])

    assert travel(value) == value
    assert hostile('{"$value":["point",{"x":1,"gone":2}]}') == classes.StructPoint(x=1)
    with pytest.raises(UnknownClass, match="no x, which has no default"):
        hostile('{"$value":["point",{}]}')
    loose = classes.Loose(1)
    loose.__dict__["more"] = 1
    with pytest.raises(PayloadError, match="holds more beside its fields"):
        travel(loose)


# Django


def test_a_field_file_travels_as_a_reference():
    """It arrives bound to the fresh row, with the name that it had when it was sent."""
    value = saved(models.Thing, pk=1, document="a/é.txt").document

    arrived = travel(value)

    assert (arrived.name, arrived.instance, arrived.field) == ("a/é.txt", value.instance, value.field)
    assert (arrived.storage, arrived._committed) == (value.storage, True)
    text, _ = codec.encode(None, {"value": value})
    assert '"model":"wire_app.Thing"' in text
    with pytest.raises(MissingRow):
        codec.decode(text, lambda _references: {})


def test_a_field_file_of_a_row_that_is_gone_travels_with_the_rows_fields():
    """A receiver of ``post_delete`` may delete the file."""
    value = models.Thing(name="gone", document="x").document

    assert travel(value).instance.name == "gone"
    value.name = None
    assert not travel(value)


def test_a_field_file_names_a_storage_other_than_its_fields():
    """It must be one of STORAGES on both sides."""
    value = saved(models.Thing, pk=1, document="x").document
    with override_settings(STORAGES={"other": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}):
        value.storage = storages["other"]
        text, _ = codec.encode(None, {"value": value})
        assert codec.decode(text, rows)[1]["value"].storage is storages["other"]
    with pytest.raises(UnknownClass, match=r"the storage 'other': add it to STORAGES"):
        codec.decode(text, rows)
    value.storage = InMemoryStorage()
    with pytest.raises(PayloadError, match="add it to STORAGES"):
        codec.encode(None, {"value": value})
    with pytest.raises(UnknownClass, match=r"wire_app\.Thing\.gone: no file field"):
        codec.decode(text.replace('"document"', '"gone"'), rows)


def test_the_data_of_a_form_is_shown_without_secrets():
    """``request.POST`` often has a password."""
    text, _ = codec.encode(None, {"data": QueryDict("name=ann&password=hunter2")})

    assert shown_payload(text)[1]["data"]["lists"] == {"name": ["ann"], "password": HIDDEN}


@pytest.fixture
def geos(monkeypatch) -> Iterator[ModuleType]:
    """GeoDjango's geometries with the real GEOS: that of the system, or of a wheel of shapely, which has no GDAL."""
    from django.conf import settings

    before = set(sys.modules)
    with override_settings():
        try:
            from django.contrib.gis import geos
        except (ImportError, ImproperlyConfigured):
            shapely = pytest.importorskip("shapely")
            libraries = [*(Path(shapely.__file__).parents[1] / "shapely.libs").glob("libgeos_c*")]
            if not libraries:
                pytest.skip("this wheel of shapely has no GEOS beside it")
            settings.GEOS_LIBRARY_PATH = str(libraries[0])
            for name in set(sys.modules) - before:
                if name.startswith("django.contrib.gis"):
                    del sys.modules[name]
            sys.modules["django.contrib.gis.gdal"] = ModuleType("gdal")
            from django.contrib.gis import geos
        yield geos
    library_types._adapters.clear()
    for name in set(sys.modules) - before:
        if name.startswith("django.contrib.gis") or name.endswith(".geometries"):
            del sys.modules[name]


def test_geometries_travel_as_wkb(geos):
    """Each kind, with its SRID and its third dimension."""
    for text in (
        "SRID=4326;POINT (1 2)",
        "POINT Z (1.5 2 3)",
        "LINESTRING (0 0, 1 1)",
        "LINEARRING (0 0, 1 1, 1 0, 0 0)",
        "SRID=3857;POLYGON ((0 0, 1 1, 1 0, 0 0))",
        "MULTIPOINT ((1 2), (3 4))",
        "MULTILINESTRING ((0 0, 1 1))",
        "MULTIPOLYGON (((0 0, 1 1, 1 0, 0 0)))",
        "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
    ):
        value = geos.GEOSGeometry(text)
        arrived = travel(value)
        assert (arrived, arrived.srid, arrived.hasz) == (value, value.srid, value.hasz)
    with pytest.raises(Garbage):
        hostile('{"$value":["geos:geometry",[{"$bytes":"eA=="},4326]]}')
    with pytest.raises(Garbage):
        hostile('{"$value":["geos:geometry",["POINT (1 2)",4326]]}')


# Money, phone numbers, numpy


def test_money_travels():
    """An amount of django-money has its decimal places and format; one of py-moneyed has neither."""
    moneyed = pytest.importorskip("moneyed")
    djmoney = pytest.importorskip("djmoney.money")

    value = djmoney.Money(Decimal("1.500"), "EUR", decimal_places=4, format_options={"format": "0"})
    arrived = travel(value)

    assert (arrived, arrived.decimal_places, dict(arrived.format_options)) == (value, 4, {"format": "0"})
    assert str(arrived.amount) == "1.500"
    assert travel(moneyed.Money(2, "VES")) == moneyed.Money(2, "VES")
    assert travel(moneyed.USD) == moneyed.USD
    with pytest.raises(UnknownClass, match=r"the currency 'XYZ': add it with moneyed\.add_currency"):
        hostile('{"$value":["money:amount",[{"$decimal":"1"},"XYZ"]]}')
    with pytest.raises(PayloadError, match=r'codec\.register\(.*Cash, name="cash", encode=…, decode=…\)'):
        travel(type("Cash", (moneyed.Money,), {})(1, "EUR"))


def test_phone_numbers_travel():
    """With what was typed, extension and leading zeros; also one that is no valid number."""
    phonenumbers = pytest.importorskip("phonenumbers")
    field = pytest.importorskip("phonenumber_field.phonenumber")

    for text in ("+34 911 23 45 67 ext. 8", "+390236618300"):
        value = phonenumbers.parse(text, keep_raw_input=True)
        assert vars(travel(value)) == vars(value)
        of_field = field.PhoneNumber.from_string(text)
        assert vars(travel(of_field)) == vars(of_field)
    wrong = field.to_python("not a number")
    assert travel(wrong).raw_input == "not a number"


def numpy_values() -> list[Any]:
    """Return a scalar of each kind, and arrays."""
    np = pytest.importorskip("numpy")
    return [
        *(np.dtype(code).type(1) for code in "?bBhHiIlLqQefdFD"),
        *(np.float64("nan"), np.float32(0.1), np.str_("é"), np.str_(""), np.bytes_(b"\xff\x00"), np.bytes_()),
        *(np.datetime64("2026-01-02T03:04:05.123", "ms"), np.datetime64("NaT", "s"), np.timedelta64(5, "D")),
        *(np.array([[1, 2], [3, 4]], dtype=">i4"), np.array(["a", "bcd"]), np.array([b"x"]), np.array(5.5)),
        *(np.zeros((0, 3)), np.arange(6).reshape(2, 3).T, np.array(["2026-01-02"], dtype="M8[D]"), np.eye(2)[::2]),
    ]


def test_numpys_scalars_and_arrays_travel():
    """To the bit, with their type and shape; an array that arrives can be written to."""
    np = pytest.importorskip("numpy")
    for value in numpy_values():
        arrived = travel(value)
        assert (arrived.dtype, arrived.shape, arrived.tobytes()) == (value.dtype, value.shape, value.tobytes())
    arrived = travel(np.array([1, 2]))
    arrived[0] = 5


def test_numpys_objects_records_and_large_arrays_are_refused():
    """Nothing is pickled, and nothing travels whose bytes are not the value."""
    np = pytest.importorskip("numpy")
    for value, text in (
        (np.array([object()]), "dtype object cannot travel"),
        (np.array([(1, 2.0)], dtype="i4,f8"), "cannot travel"),
        (np.array([(1,)], dtype="i4,")[0], r"value\[0\]: numpy\.void cannot travel"),
        (np.longdouble(1), "another one on other machines"),
        (np.zeros(10_000), "an array of 80000 bytes, 65536 are allowed"),
        (np.ma.masked_array([1]), r"value\.tolist\(\)"),
    ):
        with pytest.raises(PayloadError, match=text):
            travel(value)


@pytest.mark.parametrize(
    "text",
    [
        '"numpy:array",["|O",[1],{"$bytes":"AAAAAAAAAAA="}]',
        '"numpy:array",["<f8",[2],{"$bytes":"AAAAAAAAAAA="}]',
        '"numpy:array",["<f8",[1,1,1],{"$bytes":""}]',
        '"numpy:array",["<f8",[9223372036854775807,9223372036854775807],{"$bytes":"AAAAAAAAAAA="}]',
        '"numpy:array",["<U99999999",[1],{"$bytes":"AAAA"}]',
        '"numpy:array",["i4,f8",[1],{"$bytes":"AAAA"}]',
        '"numpy:array",[{"$tuple":["<f8",[1000000]]},[1],{"$bytes":"AAAAAAAAAAA="}]',
        '"numpy:scalar",["<f8",{"$bytes":"AAAAAAAAAAAAAAAAAAAAAA=="}]',
        '"numpy:scalar",["<f8",7]',
        '"numpy:array",1',
        f'"numpy:array",["<f8",{ENDLESS},{{"$bytes":""}}]',
        f'"numpy:scalar",["<f8",{ENDLESS}]',
    ],
)
def test_a_hostile_array_is_garbage(text: str):
    """A text that a key holder would not write makes no array, and takes no memory."""
    pytest.importorskip("numpy")
    with pytest.raises(Garbage):
        hostile(f'{{"$value":[{text}]}}')


@pytest.mark.parametrize(
    "text",
    [
        '"python:pattern",["(",32]',
        '"python:pattern",["x",160]',
        '"python:pattern",["x",1000000000000000000000]',
        '"python:pattern",[1,2]',
        '"python:range",[1,2,0]',
        '"python:range",[1,2,true]',
        '"python:fraction",[1,0]',
        '"python:fraction",["1","2"]',
        '"python:path",["/etc"]',
        '"python:ipv4-address",3232235521',
        '"python:deque",[[],1000000000000000000000]',
        '"python:timezone",[1e300]',
        '"python:zone-info",1',
        '"django:query-dict",{"lists":[],"encoding":null,"mutable":true}',
        '"django:query-dict",[]',
        f'"python:deque",[{ENDLESS},3]',
        f'"python:ordered-dict",{ENDLESS}',
        f'"python:timezone",{ENDLESS}',
        f'"python:fraction",{ENDLESS}',
        f'"django:multi-value-dict",{{"a":{ENDLESS}}}',
        f'"django:query-dict",{{"lists":{{"a":{ENDLESS}}},"encoding":null,"mutable":true}}',
        '"django:field-file",{"model":"x"}',
        '"django:multi-value-dict",{"a":1}',
        "1,2",
        '"python:path"',
    ],
)
def test_a_hostile_value_is_garbage(text: str):
    """No other error is raised, and nothing is opened or imported."""
    with pytest.raises(TextError):
        hostile(f'{{"$value":[{text}]}}')


def test_no_name_imports_anything_but_its_library():
    """A name is looked up in a table."""
    for name in ("os:system", "tests.unit.wire_app:models", "numpy:os", ":", "python:", "x" * 10_000):
        with pytest.raises(UnknownClass):
            hostile(f'{{"$value":["{name}",1]}}')


def test_a_library_that_is_missing_is_named(monkeypatch):
    """The message is parked until the worker has it."""
    monkeypatch.setitem(sys.modules, "numpy", None)
    monkeypatch.delitem(sys.modules, f"{library_types.__name__}.numpy_values", raising=False)

    with pytest.raises(UnknownClass, match='the type "numpy:array": this worker needs numpy to read it: install it'):
        hostile('{"$value":["numpy:array",1]}')


def test_a_library_in_c_that_is_missing_is_named(monkeypatch):
    """GeoDjango says with an error of its own that GEOS or GDAL is not found; the message is parked as well."""

    def not_found(_module: str) -> None:
        raise ImproperlyConfigured("Could not find the GDAL library")

    monkeypatch.setattr(library_types, "_load", not_found)

    with pytest.raises(UnknownClass, match='the type "geos:geometry": this worker needs GEOS'):
        hostile('{"$value":["geos:geometry",1]}')


def test_no_library_is_imported_unless_the_host_does():
    """Neither by the start of signalbus, nor by a payload with other values."""
    program = """
import sys, django; django.setup()
from pathlib import Path
from signalbus.wire import codec
codec.encode(None, {"a": [Path("x"), {1}]})
try:
    codec.encode(None, {"a": object()})
except Exception:
    pass
libraries = {"pydantic", "attr", "msgspec", "numpy", "moneyed", "djmoney", "phonenumbers", "shapely"}
print(sorted(libraries & sys.modules.keys()), "django.contrib.gis.geos" in sys.modules)
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}
    shown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True)

    assert shown.stdout.decode().strip() == "[] False"


# All in all


def library_values(classes: Any) -> tuple[list[Any], list[Any]]:
    """Return a value of each library, and functions that put a value into another one."""
    djmoney, field = pytest.importorskip("djmoney.money"), pytest.importorskip("phonenumber_field.phonenumber")
    for kind in (classes.AnyModel, classes.AnyAttrs, classes.AnyStruct):
        public.register(kind, name=kind.__name__)
    leaves = [
        djmoney.Money(1, "EUR"),
        field.PhoneNumber.from_string("+34911234567"),
        saved(models.Thing, pk=1, document="x").document,
        *numpy_values(),
        *library_leaves,
    ]
    wrap = [
        lambda inner: classes.AnyModel(value=inner),
        classes.AnyAttrs,
        classes.AnyStruct,
        lambda inner: [inner],
        lambda inner: {"$a": (inner,)},
        lambda inner: collections.deque([inner], 2),
        lambda inner: collections.OrderedDict(a=inner),
        lambda inner: MultiValueDict({"a": [inner]}),
        lambda inner: query_dict(False, {"a": [inner]}),
        models.Point,
    ]
    return leaves, wrap


def test_each_type_travels_inside_each_other(classes):
    """The text of what arrived is that of what was sent."""
    leaves, wrap = library_values(classes)

    @given(st.recursive(st.sampled_from(leaves), lambda inner: st.sampled_from(wrap).flatmap(inner.map), max_leaves=4))
    def nested(value: Any) -> None:
        text, _ = codec.encode(None, {"value": value})
        arrived = codec.decode(text, rows)[1]["value"]
        assert type(arrived) is type(value)
        assert codec.encode(None, {"value": arrived})[0] == text

    nested()


def test_a_mutated_text_is_read_or_refused(classes):
    """A part of one text replaces a part of another; no other error is raised."""
    leaves, wrap = library_values(classes)
    choose = random.Random(4)
    texts = [codec.encode(None, {"value": choose.choice(wrap)(leaf)})[0] for leaf in leaves]
    pieces = ['"', "{", "}", "[", "]", ",", ":", "0", "-1", "1e9", "null", "true", "$", '"<f8"', '{"$bytes":"eA=="}']
    read = refused = 0
    for _ in range(3000):
        text = choose.choice(texts)
        at = choose.randrange(len(text))
        changed = text[:at] + choose.choice(pieces) + text[at + choose.randrange(9) :]
        try:
            codec.decode(changed, rows)
            read += 1
        except (TextError, UnknownClass, MissingRow):
            refused += 1
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if not any("decode of the type" in note for note in getattr(error, "__notes__", ())):  # of the host's class
                raise
    assert read
    assert refused
