"""``signalbus.codec.register``: a type of the host travels under a name, and a mistake is named with both places."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import dataclass, make_dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from django.apps import apps
from django.db import OperationalError
from django.test import modify_settings

from signalbus import codec as public
from signalbus.codec import registering
from signalbus.exceptions import ConfigurationError, MissingRow, PayloadError, UnknownClass
from signalbus.services.redaction import HIDDEN, shown_payload
from signalbus.wire import codec
from signalbus.wire.values import registered_types
from signalbus.wire.values.references import Snapshot
from tasks.admissions.models import Cohort

from .wire_app import models
from .wire_values import rows, saved

if TYPE_CHECKING:
    from collections.abc import Iterator


class Price:
    """An amount in a currency, of a class of the host."""

    def __init__(self, amount: object, currency: str) -> None:
        self.amount = amount
        self.currency = currency

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.amount, self.currency))


class SalePrice(Price):
    """A kind of price."""


class Opaque:
    """A value that is equal to itself alone."""

    def __init__(self, number: int) -> None:
        self.number = number


class Pair(NamedTuple):
    """A named tuple with a default."""

    one: Any
    two: Any = 2


@dataclass
class Order:
    """A dataclass outside of the installed apps."""

    number: int
    lines: list[Any]
    password: str = "secret"


@pytest.fixture(autouse=True)
def wire_app() -> Iterator[None]:
    """Install the app that the test models belong to, and forget what a test registers."""
    with modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"}):
        yield
    registered_types.by_type.clear()
    registered_types.by_name.clear()
    registering._examples.clear()


def parts(value: Price) -> tuple[object, str]:
    """Take a price apart."""
    return value.amount, value.currency


def price(parts: tuple[object, str]) -> Price:
    """Put a price together."""
    return Price(*parts)


def register_price(**options: Any) -> None:
    """Register the class of prices."""
    public.register(Price, **{"name": "price", "encode": parts, "decode": price, **options})


def travel(value: Any, **options: Any) -> Any:
    """Send one value and receive it."""
    return codec.decode(codec.encode(None, {"value": value}, **options)[0], rows)[1]["value"]


def test_a_value_of_a_registered_type_arrives_at_any_depth():
    """What encode returns may hold other values that travel, and other registered types."""
    register_price()
    public.register(Pair, name="pair")
    value = {"a": [Price(Decimal("1.50"), "EUR"), {Price(1, "é")}], "pair": Pair(Price(2, "$"), models.Point(1, (2,)))}

    assert travel(value) == value
    assert type(travel(value)["pair"]) is Pair


def test_the_name_travels_and_no_module():
    """The class may move to another module while messages wait."""
    register_price()

    text, version = codec.encode(None, {"value": Price(1, "EUR")})

    assert (text, version) == ('[null,{"value":{"$value":["price",{"$tuple":[1,"EUR"]}]}}]', "6")


@pytest.mark.parametrize(
    "value",
    [Pair(1), Pair([1], {"a": 2}), Order(1, [Pair(1), (2,)]), models.Frozen(1, (2,)), models.FrozenDict((1,))],
    ids=lambda value: type(value).__name__,
)
def test_a_class_with_fields_travels_without_functions(value):
    """A named tuple, a dataclass, also one with slots."""
    if type(value) is not Pair:
        public.register(Pair, name="pair")
    public.register(type(value), name="value", example=value)

    arrived = travel([value])[0]

    assert (type(arrived), arrived) == (type(value), value)


def test_a_field_of_one_side_only_takes_its_default_or_is_left_out():
    """Both sides of a rolling deploy understand each other; a field without a default parks the message."""
    public.register(make_dataclass("Newer", ["a", ("b", int, 5)]), name="newer")
    public.register(namedtuple("Tuple", ["a", "b"], defaults=[5]), name="tuple")

    for name in ("newer", "tuple"):
        text = f'[null,{{"value":{{"$value":["{name}",{{"a":1,"gone":2}}]}}}}]'
        arrived = codec.decode(text, rows)[1]["value"]
        assert (arrived.a, arrived.b) == (1, 5)
        with pytest.raises(UnknownClass, match=f'the type "{name}": .*has no a,|{name}: the message has no a,'):
            codec.decode(f'[null,{{"value":{{"$value":["{name}",{{}}]}}}}]', rows)


def test_a_type_that_is_not_here_is_named():
    """The message is parked under the name of its type, with the line that lets it run."""
    register_price()
    text, _ = codec.encode(None, {"value": [Price(1, "EUR")]})
    registered_types.by_name.clear()

    with pytest.raises(UnknownClass, match=r'the type "price": .*codec\.register\(…, name="price"\)'):
        codec.decode(text, rows)
    with pytest.raises(UnknownClass, match=r'the type "python:later": .*newer signalbus'):
        codec.decode('[null,{"value":{"$value":["python:later",1]}}]', rows)


def test_a_former_name_is_read():
    """Messages wait under the name that a type had, or under the place of a dataclass."""
    register_price(was=["old-price"])
    public.register(models.Point, name="point", was=["old.module:Point"])

    for text in ('{"$value":["old-price",{"$tuple":[1,"EUR"]}]}', '{"$value":["price",{"$tuple":[1,"EUR"]}]}'):
        assert codec.decode(f'[null,{{"value":{text}}}]', rows)[1]["value"] == Price(1, "EUR")
    for text in (
        '{"$data":["old.module:Point",{"x":[1]}]}',
        '{"$data":["tests.unit.wire_app.models:Point",{"x":[1]}]}',
    ):
        assert codec.decode(f'[null,{{"value":{text}}}]', rows)[1]["value"] == models.Point([1])


def test_rows_inside_a_value_are_loaded_before_decode():
    """Of a row that is gone, decode is not called."""
    register_price()
    text, _ = codec.encode(None, {"value": Price(saved(Cohort, pk=3), "EUR")})

    assert codec.decode(text, rows)[1]["value"].amount == Cohort(pk=3)
    with pytest.raises(MissingRow, match=r"admissions\.Cohort 3"):
        codec.decode(text, lambda _references: {})


def test_a_subclass_is_refused_with_the_line_that_registers_it():
    """It would arrive as its base."""
    register_price()

    with pytest.raises(PayloadError) as caught:
        travel([SalePrice(1, "EUR")])

    assert caught.value.path == "value[0]"
    assert 'subclass of the registered type "price"' in str(caught.value)
    assert 'codec.register(SalePrice, name="sale-price", encode=…, decode=…)' in str(caught.value)


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        ({"decode": lambda parts: Price(parts[0], "USD")}, "arrives as"),
        ({"decode": lambda parts: parts}, r"arrives as \(1, 'EUR'\)"),
        ({"decode": lambda parts: parts.amount}, "AttributeError"),
        ({"encode": lambda value: value.total}, "AttributeError"),
        ({"encode": lambda value: [value.amount, object()]}, r"value\[1\]: object cannot travel"),
        ({"encode": lambda value: value}, "nested deeper|Python's stack"),
    ],
)
def test_the_example_proves_the_round_trip(functions: dict[str, Any], problem: str):
    """A function that loses something fails where it is registered, and at the first send without an example."""
    with pytest.raises(ConfigurationError, match=rf"test_registered_types\.py:\d+: .*({problem})"):
        register_price(**functions, example=Price(1, "EUR"))
    register_price(**functions)
    for _ in range(2):
        with pytest.raises(PayloadError, match=problem):
            travel(Price(1, "EUR"))


def test_the_first_value_is_proved_within_the_limits_of_the_project():
    """A value that SIGNALBUS["MAX_NESTING"] and SIGNALBUS["MAX_BYTES"] allow is sent, also as the first of its type."""
    deep: Any = 1
    for _ in range(90):
        deep = [deep]
    for value in (Opaque(deep), Opaque("x" * 300_000)):  # type: ignore[arg-type]  # any value
        public.register(Opaque, name="opaque", encode=lambda value: value.number, decode=Opaque)
        text, _ = codec.encode(None, {"v": value}, max_depth=100, max_bytes=400_000)
        assert codec.decode(text, rows, max_depth=100)[1]["v"].number == value.number
        registered_types.forget(registered_types.by_type[Opaque])


def test_a_value_that_fills_a_message_is_proved():
    """The text of the proof is no shorter than that of the message, and may be as long."""
    register_price()
    value = {"": Price("x" * 900, "EUR")}
    longest = len(codec.encode("", value)[0])
    registered_types.by_name["price"].is_proved = False

    assert len(codec.encode("", value, max_bytes=longest)[0]) == longest


@pytest.mark.parametrize("error", [OperationalError("gone"), MemoryError()], ids=lambda error: type(error).__name__)
def test_an_error_of_the_database_or_the_machine_is_none_of_the_value(error: Exception):
    """It ends the send as it is; the proof is made with the next value."""
    failing = [True]

    def decode(parts: tuple[object, str]) -> Price:
        if failing:
            raise error
        return Price(*parts)

    register_price(decode=decode)
    with pytest.raises(type(error)):
        codec.encode(None, {"value": Price(1, "EUR")})
    failing.clear()
    assert travel(Price(1, "EUR")) == Price(1, "EUR")


def test_a_proof_that_goes_on_vouches_for_nothing():
    """Another thread that sends a value of the type meanwhile proves it as well."""
    sent: list[str] = []

    def decode(parts: tuple[object, str]) -> Price:
        if not sent:  # as another thread, between the two halves of this proof
            sent.append("meanwhile")
            with pytest.raises(PayloadError, match="arrives as"):
                codec.encode(None, {"value": Price(2, "EUR")})
        return Price(parts[0], "USD")

    register_price(decode=decode)
    with pytest.raises(PayloadError, match="arrives as"):
        codec.encode(None, {"value": Price(1, "EUR")})
    assert sent


def test_an_example_without_equality_is_compared_by_what_travels():
    """Most classes define no ``==``."""
    public.register(Opaque, name="opaque", encode=lambda value: value.number, decode=Opaque, example=Opaque(1))
    with pytest.raises(ConfigurationError, match="arrives as"):
        register_price(encode=lambda value: "x", decode=lambda _: Price(1, "EUR"), example=Price(2, "EUR"))

    assert travel(Opaque(3)).number == 3


def test_an_example_may_hold_rows():
    """They are compared by their keys, and none is loaded."""
    register_price(example=Price([saved(Cohort, pk=3), saved(models.Line, pk=(1, 2))], "EUR"))


def test_an_example_given_before_the_models_are_loaded_is_proved_later(monkeypatch):
    """``AppConfig.ready`` of signalbus does it."""
    monkeypatch.setattr(apps, "models_ready", False)
    register_price(decode=lambda parts: None, example=Price(1, "EUR"))
    monkeypatch.setattr(apps, "models_ready", True)

    with pytest.raises(ConfigurationError, match="arrives as None"):
        registering.prove_examples()
    registering.prove_examples()


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        (Price, {"name": "other"}, r'Price is registered already, as "price" in .*test_registered_types\.py:\d+'),
        (SalePrice, {"name": "price"}, r'the name "price" is taken, in .*test_registered_types\.py:\d+'),
        (SalePrice, {"name": "x", "was": ["price"]}, 'the name "price" is taken'),
        (SalePrice, {"name": "a price"}, r'name="sale-price"'),
        (SalePrice, {"name": ""}, r"1 to 100 letters"),
        (SalePrice, {"name": "python:price"}, r"1 to 100 letters"),
        (SalePrice, {"name": None}, r"1 to 100 letters"),
        (SalePrice, {"name": f"{__name__}.SalePrice"}, "place of a class changes"),
        (SalePrice, {"name": "x", "was": ["a:B"]}, "leave encode= and decode= out"),
        (SalePrice, {"name": "x", "decode": None}, "give encode= and decode=, or neither"),
        (SalePrice, {"name": "x", "encode": None, "decode": None}, "say with encode= and decode="),
        (SalePrice, {"name": "x", "example": Price(1, "EUR")}, "example= is a .*Price"),
        (models.Number, {"name": "x", "encode": None, "decode": None}, "on top of a built-in type"),
        (Cohort, {"name": "x"}, "is a model"),
        (Snapshot, {"name": "x"}, "without being registered"),
        (dict, {"name": "x"}, "dict travels without being registered"),
        (type, {"name": "x"}, "class of classes"),
        ("Price", {"name": "x"}, "takes a class"),
    ],
)
def test_a_wrong_registration_is_refused(kind: Any, options: dict[str, Any], text: str):
    """The error names the call, the other place, or what to write."""
    register_price()

    with pytest.raises(ConfigurationError, match=text):
        public.register(kind, **{"encode": parts, "decode": price, **options})

    assert registered_types.by_name.keys() == {"price"}


def test_a_registered_type_wins_over_the_rule_for_its_base():
    """A kind of text, of enumeration or of standard class travels as it is registered."""

    class Code(str):
        __slots__ = ()

    public.register(Code, name="code", encode=str.__str__, decode=Code)
    public.register(models.Colour, name="colour", encode=lambda value: value.value, decode=models.Colour)

    assert type(travel(Code("x"))) is Code
    assert codec.encode(None, {"value": models.Colour.RED})[0] == '[null,{"value":{"$value":["colour","red"]}}]'
    assert travel(models.Colour.RED) is models.Colour.RED


def test_an_error_of_decode_fails_the_attempt():
    """It is the host's error, with a note that names the type."""

    def fail(parts: object) -> Price:
        raise LookupError("no such currency")

    register_price()
    text, _ = codec.encode(None, {"value": Price(1, "EUR")})
    registered_types.by_name["price"].decode = fail

    with pytest.raises(LookupError, match="no such currency") as caught:
        codec.decode(text, rows)
    assert 'decode of the type "price", registered in' in caught.value.__notes__[0]


def test_what_travels_of_a_value_counts_towards_the_limits():
    """A value that encodes to itself, or to too much, is refused."""
    register_price()
    deep: Any = 1
    for _ in range(40):
        deep = Price(deep, "EUR")

    with pytest.raises(PayloadError, match="nested deeper"):
        travel(deep)
    with pytest.raises(PayloadError, match="262144 are allowed"):
        travel(Price("x" * 300_000, "EUR"))


def test_a_snapshot_of_a_row_holds_what_its_column_stores():
    """Older workers go on reading snapshots of models whose fields hold values of a registered type."""
    public.register(
        models.Temperature,
        name="temperature",
        encode=lambda value: value.kelvin,
        decode=models.Temperature,
    )
    thing = models.Thing(heat=models.Temperature(300), extra={"heat": models.Temperature(7)})
    thing.extra = None

    text, version = codec.encode(None, {"value": thing, "heat": models.Temperature(1)})

    assert '"heat":"300K"' in text
    assert version == "6"
    assert codec.encode(None, {"value": thing})[1] == "1"
    thing.extra = {"heat": models.Temperature(7)}
    assert travel(thing).extra == {"heat": models.Temperature(7)}


def test_people_see_the_name_of_the_type_and_no_secret():
    """The fields of a registered class are shown like those of a dict."""
    register_price()
    public.register(Order, name="order")

    text, _ = codec.encode(None, {"order": Order(1, [Price(2, "EUR")])})

    assert shown_payload(text)[1] == {
        "order": {
            "type": "order",
            "number": 1,
            "lines": [{"type": "price", "value": [2, "EUR"]}],
            "password": HIDDEN,
        }
    }
    json.dumps(shown_payload(text)[1])
