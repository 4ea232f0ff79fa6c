"""A signal that declares its payload refuses another one where it is sent, and fills in defaults."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import InitVar, dataclass, make_dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from traceback import format_exception
from typing import Any

import attrs
import pydantic
import pytest
from django.contrib.auth.models import User
from django.utils.asyncio import async_unsafe
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext_lazy

from signalbus import Signal, Snapshot
from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.models import State
from signalbus.testing import Captured, captured
from tasks.admissions.models import Cohort
from tests.unit.payload_classes import (
    Basket,
    CheckedAddress,
    CheckedAddressAttrs,
    CheckedAddressModel,
    CohortSaved,
    CohortSavedAttrs,
    CohortSavedDict,
    CohortSavedModel,
    CohortSavedStruct,
    EveryType,
    ForTypeCheckers,
    Limited,
    Ordered,
    Positive,
    StrictName,
)

KINDS = [CohortSaved, CohortSavedAttrs, CohortSavedModel, CohortSavedStruct, CohortSavedDict]
WITH_DEFAULTS = KINDS[:-1]

DECORATORS: dict[type, Any] = {
    CohortSaved: dataclass(frozen=True, kw_only=True),
    CohortSavedAttrs: attrs.frozen(kw_only=True),
    CohortSavedModel: lambda kind: kind,
    CohortSavedStruct: lambda kind: kind,
}

COHORT = Cohort(pk=7, name="Web")
COHORT._state.adding = False


def on_declared(sender, **kwargs):
    """Receive in a worker."""


def declare(payload: Any, **options: Any) -> Signal:
    """Return a signal that declares a payload, with a receiver in a worker."""
    signal: Signal = Signal("tests.declared", payload=payload, **options)
    signal.connect(on_declared)
    return signal


def payloads(sent: Captured) -> list[dict[str, Any]]:
    """Return what was sent; its rows are made up, without a database."""

    def found(wanted: Any) -> dict[Any, Any]:
        return {reference: Cohort(pk=reference.pk, name="Web") for reference in wanted}

    return [message._payload(found) for message in sent]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def signal(request) -> Signal:
    """A signal for each kind of payload class."""
    return declare(request.param)


class TestEachKindOfClass:
    """A dataclass, an attrs class, a pydantic model, a msgspec struct and a TypedDict declare the same."""

    def test_a_payload_as_declared_is_sent(self, signal: Signal):
        """Receivers get the keywords of the sender."""
        with captured() as sent:
            signal.send(Cohort, instance=COHORT, created=True, tags=["new"])
        assert payloads(sent)[0] == {"instance": COHORT, "created": True, "tags": ["new"]}

    def test_a_missing_key_is_refused(self, signal: Signal):
        """The error names the key and the class."""
        with captured() as sent, pytest.raises(PayloadError, match=r"^instance: .*CohortSaved\w* requires it"):
            signal.send(Cohort, created=True)
        assert len(sent) == 0

    def test_an_unknown_key_is_refused(self, signal: Signal):
        """The error names the key, and the key that was probably meant."""
        with pytest.raises(PayloadError, match=r"^craeted: .* did you mean created\?") as caught:
            signal.send(Cohort, instance=COHORT, craeted=True)
        assert caught.value.path == "craeted"

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("created", "yes", "bool.*got a value of type str"),
            ("created", None, "bool.*(got None|NoneType)"),
            ("instance", User(pk=1), "Cohort.*got a value of type User"),
            ("tags", "new", "list.*got a value of type str"),
            ("tags", ["new", 1], "(str|string).*got a value of type int"),
        ],
    )
    def test_a_value_of_another_type_is_refused(self, signal: Signal, key, value, said):
        """The error names the key, what the class takes and what was given; the value itself may be secret."""
        with pytest.raises(PayloadError, match=f"^{key}.*{said}") as caught:
            signal.send(Cohort, **{"instance": COHORT, key: value})
        assert "yes" not in str(caught.value)

    def test_lazy_objects_and_snapshots_are_accepted_for_rows(self, signal: Signal):
        """A key of a model takes what becomes a row of that model, or its values, in the worker."""
        with captured() as sent:
            signal.send(Cohort, instance=SimpleLazyObject(lambda: COHORT))
            signal.send(Cohort, instance=Snapshot(COHORT))
        assert [each["instance"] for each in payloads(sent)] == [COHORT, COHORT]

    def test_every_form_of_send_checks(self, signal: Signal):
        """`send_later`, `send_many` and the coroutines refuse the same; nothing is sent."""
        with captured() as sent:
            with pytest.raises(PayloadError, match=r"^created"):
                signal.send_later(timedelta(), Cohort, instance=COHORT, created="yes")
            with pytest.raises(PayloadError, match=r"^\[1\]\.created"):
                signal.send_many(Cohort, [{"instance": COHORT}, {"instance": COHORT, "created": "yes"}])
            with pytest.raises(PayloadError, match=r"^created"):
                asyncio.run(signal.asend(Cohort, instance=COHORT, created="yes"))
            with pytest.raises(PayloadError, match=r"^created"):
                asyncio.run(signal.asend_later(timedelta(), Cohort, instance=COHORT, created="yes"))
        assert len(sent) == 0


class TestUnderAnEventLoop:
    """A check that queries a database, as of a lazy ``request.user``, is made where Django allows a query."""

    @staticmethod
    @async_unsafe
    def look_up() -> Cohort:
        """Return a row as a query does: never on the thread of an event loop."""
        return COHORT

    @pytest.mark.parametrize("form", ["send", "send_robust", "asend", "asend_robust", "send_later", "asend_later"])
    def test_a_lazy_row_is_checked_and_sent(self, signal: Signal, form: str):
        """Each form evaluates the row on another thread."""
        when = [timedelta()] if "later" in form else []

        async def view() -> None:
            answer = getattr(signal, form)(*when, Cohort, instance=SimpleLazyObject(self.look_up))
            if form.startswith("a"):
                await answer

        with captured() as sent:
            asyncio.run(view())
        assert [each["instance"] for each in payloads(sent)] == [COHORT]

    def test_lazy_rows_of_send_many_are_checked_and_sent(self, signal: Signal):
        """This holds for each payload."""

        async def view() -> None:
            signal.send_many(Cohort, [{"instance": SimpleLazyObject(self.look_up)} for _ in range(2)])

        with captured() as sent:
            asyncio.run(view())
        assert [each["instance"] for each in payloads(sent)] == [COHORT, COHORT]

    @pytest.mark.parametrize("form", ["send_robust", "asend_robust"])
    def test_a_lazy_row_of_another_model_is_the_error_of_each_receiver(self, signal: Signal, form: str):
        """The error names the key; it says nothing of the event loop."""

        async def view() -> Any:
            answer = getattr(signal, form)(Cohort, instance=SimpleLazyObject(lambda: User(pk=1)))
            return await answer if form.startswith("a") else answer

        with captured():
            responses = asyncio.run(view())
        assert [type(error) for _, error in responses] == [PayloadError]
        assert str(responses[0][1]).startswith("instance: ")


@pytest.mark.parametrize("kind", WITH_DEFAULTS, ids=lambda kind: kind.__name__)
def test_defaults_are_filled_in(kind):
    """Receivers, also those in the sender's process, get the defaults of keys that were not given."""
    signal, inline = declare(kind), []

    def on_inline(sender, **kwargs):
        inline.append(kwargs)

    signal.connect(on_inline, inline=True)
    with captured() as sent:
        signal.send(Cohort, instance=COHORT)
        signal.send_many(Cohort, [{"instance": COHORT}])
    expected = {"instance": COHORT, "created": False, "tags": []}
    assert payloads(sent) == [expected, expected]
    assert inline == [{"signal": signal, **expected}] * 2
    assert inline[0]["tags"] is not inline[1]["tags"]


def test_a_default_that_a_receiver_changes_is_not_the_next_message_s():
    """Each message has a list of its own, also where the class has one list for all of its objects."""
    signal, inline = declare(Basket), []

    def on_inline(sender, items, **kwargs):
        items.append("added")
        inline.append(items)

    signal.connect(on_inline, inline=True)
    with captured():
        signal.send(None)
        signal.send(None)
    assert inline == [["added"], ["added"]]


@pytest.mark.parametrize("kind", WITH_DEFAULTS, ids=lambda kind: kind.__name__)
def test_send_many_takes_objects_of_the_class(kind):
    """An object of the payload class is sent as its fields."""
    signal = declare(kind)
    with captured() as sent:
        signal.send_many(Cohort, [kind(instance=COHORT, tags=["a"]), {"instance": COHORT}])
    assert [each["tags"] for each in payloads(sent)] == [["a"], []]
    with pytest.raises(
        PayloadError, match=r"^\[0\]: a payload is a mapping or a .*CohortSaved.*got a value of type int"
    ):
        signal.send_many(Cohort, [3])  # type: ignore[list-item]


@pytest.mark.parametrize("kind", WITH_DEFAULTS, ids=lambda kind: kind.__name__)
def test_an_object_of_a_subclass_is_sent_only_if_nothing_is_lost(kind):
    """A field that the declared class does not have would not travel: it is named."""
    signal = declare(kind)
    plain = type("Plain", (kind,), {"__module__": __name__})
    with captured() as sent:
        lazy: Any = SimpleLazyObject(lambda: kind(instance=COHORT))
        signal.send_many(Cohort, [plain(instance=COHORT), lazy])
    assert [each["instance"] for each in payloads(sent)] == [COHORT, COHORT]
    more = DECORATORS[kind](
        type("More", (kind,), {"__module__": __name__, "__annotations__": {"room": int}, "room": 3})
    )
    with pytest.raises(PayloadError, match=r"^\[0\]: .*CohortSaved\w* has no room, which the .*More has: .*declare"):
        signal.send_many(Cohort, [more(instance=COHORT)])


def test_a_key_that_is_no_text_is_refused():
    """A dict of `send_many` may have any keys."""
    for key in (1, None, (1, 2)):
        with pytest.raises(PayloadError, match=r"^\[0\]: .*CohortSaved has keys of type str, got a value of type|None"):
            declare(CohortSaved).send_many(Cohort, [{"instance": COHORT, key: 1}])  # type: ignore[dict-item]


def test_a_typed_dict_has_no_defaults():
    """A key that is not required is absent if it is not given."""
    with captured() as sent:
        declare(CohortSavedDict).send(Cohort, instance=COHORT)
    assert payloads(sent)[0] == {"instance": COHORT}


def test_nothing_listens_and_a_wrong_payload_is_refused_all_the_same():
    """A sender's test finds the mistake, whatever is connected."""
    signal: Signal = Signal("tests.unheard", payload=CohortSaved)
    with pytest.raises(PayloadError, match=r"^instance"):
        signal.send(Cohort)


def test_robust_forms_return_the_error_for_each_receiver(caplog):
    """No receiver is called with a wrong payload, and nothing is raised; the error is logged."""
    signal, called = declare(CohortSaved), []

    def on_inline(sender, **kwargs):
        called.append(kwargs)

    signal.connect(on_inline, inline=True)
    with captured(), caplog.at_level(logging.ERROR):
        sent = signal.send_robust(Cohort, created=True)
        awaited = asyncio.run(signal.asend_robust(Cohort, created=True))
    for responses in (sent, awaited):
        assert [receiver for receiver, _ in responses] == [on_inline, on_declared]
        assert {type(error) for _, error in responses} == {PayloadError}
    assert called == []
    assert "instance: tests.unit.payload_classes.CohortSaved requires it" in caplog.text


def test_robust_forms_return_the_error_if_all_receivers_run_here(caplog):
    """A signal whose receivers are all inline answers alike."""
    signal: Signal = Signal("tests.declared_inline", payload=CohortSaved)
    signal.connect(on_declared, inline=True)
    assert [type(error) for _, error in signal.send_robust(Cohort)] == [PayloadError]
    assert "could not send" in caplog.text


@pytest.mark.parametrize(
    "payload",
    [
        {"optional": None},
        {"optional": COHORT},
        {"either": "text"},
        {"literal": 3},
        {"rows": [COHORT, Snapshot(COHORT)]},
        {"prices": {"a": Decimal(1)}},
        {"pair": (1, "a")},
        {"numbers": (1, 2, 3)},
        {"ids": frozenset({1})},
        {"limited": True},  # a bool is an int, for type checkers too
        {"slug": gettext_lazy("text")},
        {"level": State.DEAD},
        {"ratio": 1},
        {"address": {"street": "Elm"}},
        {"address": {"street": "Elm", "number": 1}},
        {"model": Cohort},
        {"anything": Cohort},
        {"page": {"held": [1]}},
        {"any_class": User},
        {"any_tuple": (1, "a")},
        {"path": (1, "a", "b")},
        {"unknown": "cannot be checked"},
    ],
    ids=str,
)
def test_values_of_each_type_are_accepted(payload):
    """What type checkers accept is accepted at run time."""
    with captured():
        declare(EveryType).send(Cohort, **payload)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"optional": 3}, r"^optional: .*takes .*Cohort \| None, got a value of type int"),
        ({"either": 1.5}, "^either: .*int | str, got a value of type float"),
        ({"literal": "c"}, r"^literal: .*Literal\['a', 'b', 3\], got 'c'"),
        ({"literal": True}, "^literal: "),
        ({"rows": [COHORT, None]}, r"^rows\[1\]: .*takes Cohort, got None"),
        ({"rows": (COHORT,)}, "^rows: .*got a value of type tuple"),
        ({"prices": {"a": 1.5}}, r"^prices\['a'\]: .*takes Decimal, got a value of type float"),
        ({"prices": {1: Decimal(1)}}, r"^prices\[1\]: .*takes str"),
        ({"pair": (1, 2)}, r"^pair\[1\]: .*takes str"),
        ({"pair": (1,)}, "^pair: .*a tuple of 2, got one of 1"),
        ({"numbers": (1, "2")}, r"^numbers\[1\]: .*takes int"),
        ({"ids": {1}}, "^ids: .*got a value of type set"),
        ({"limited": "1"}, "^limited: .*takes int"),
        ({"slug": 1}, "^slug: .*takes str"),
        ({"level": 1}, "^level: .*takes State, got a value of type int"),
        ({"ratio": "1"}, "^ratio: .*takes float"),
        ({"address": {"number": 1}}, "^address: .*takes Address, got a dict without 'street'|Address"),
        ({"address": {"street": 1}}, r"^address\['street'\]: .*takes str"),
        ({"page": {"items": [1]}}, r"^page: .*Page\[int\]"),
        ({"any_class": 1}, "^any_class: .*takes type"),
        ({"any_tuple": [1]}, "^any_tuple: .*got a value of type list"),
        ({"path": [1]}, "^path: .*got a value of type list"),
        ({"model": User}, r"^model: .*takes type\[.*Cohort\]"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_of_other_types_are_refused(payload, said):
    """The error names the place in the value, what is declared there, and what was given."""
    with pytest.raises(PayloadError, match=said):
        declare(EveryType).send(Cohort, **payload)


def test_a_protocol_for_type_checkers_lets_every_value_pass():
    """isinstance() would raise an error for it, also with an argument."""
    contract = declare(EveryType).contract
    assert contract is not None
    contract.check({"reader": COHORT})


def test_types_that_are_imported_for_type_checkers_are_checked():
    """The module of a model imports the signal, whose payload names the model: the import is made when it is needed."""
    contract = declare(ForTypeCheckers).contract
    assert contract is not None
    contract.check({"user": User(pk=1), "amount": Fraction(1)})
    for payload in ({"user": COHORT, "amount": Fraction(1)}, {"user": User(), "amount": 1}):
        with pytest.raises(PayloadError, match=r"takes (User|Fraction)"):
            contract.check(payload)
    with pytest.raises(PayloadError, match=r"^either: .*User \| None"):
        contract.check({"user": User(), "amount": Fraction(1), "either": 1})


def test_an_annotation_that_cannot_be_evaluated_is_known():
    """The values of its key are not checked, and the system check tells of it."""
    contract = declare(EveryType).contract
    assert contract is not None
    assert [field.name for field in contract.declared.unchecked()] == ["unknown"]


class TestRulesOfTheClass:
    """A class that validates its values is asked; what its object holds is what travels."""

    def test_a_pydantic_model_validates_strictly(self):
        """Nothing is coerced; what a validator returns is sent."""
        signal = declare(StrictName)
        with captured() as sent:
            signal.send(None, name=" ab ")
        assert payloads(sent)[0] == {"name": "ab", "size": 1}
        with pytest.raises(PayloadError, match=r"^size: .*valid integer, got a value of type str"):
            signal.send(None, name="ab", size="3")
        with pytest.raises(PayloadError, match=r"^name: .*is too long"):
            signal.send(None, name="abcdef")

    def test_a_pydantic_model_may_take_more_keys(self):
        """``extra="allow"`` accepts any key."""

        class Open(pydantic.BaseModel, extra="allow"):
            name: str

        signal = declare(Open)
        with captured() as sent:
            signal.send(None, name="a", more=1)
            signal.send_many(None, [Open(name="a", more=2)])  # type: ignore[call-arg]
        assert payloads(sent) == [{"name": "a", "more": 1}, {"name": "a", "more": 2}]

    def test_validators_of_attrs_are_asked(self):
        """The keyword of a private attribute is the one that its class takes."""
        signal = declare(Positive)
        with captured() as sent:
            signal.send(None, amount=1, note="a")
        assert payloads(sent)[0] == {"amount": 1, "note": "a"}
        with pytest.raises(PayloadError, match="Positive refuses it: 'amount' must be > 0"):
            signal.send(None, amount=0)

    @pytest.mark.parametrize("kind", [CheckedAddress, CheckedAddressModel, CheckedAddressAttrs])
    def test_a_validator_of_django_refuses(self, kind):
        """A form that sends would take its ValidationError for one of its own fields."""
        with captured():
            declare(kind).send(None, email="a@example.org")
        with pytest.raises(PayloadError, match="refuses it: Enter a valid email address"):
            declare(kind).send(None, email="secret")

    def test_no_error_in_the_chain_shows_a_value(self):
        """Logs and error trackers print the causes of an error as well; a rule's own error stays one."""
        for kind, payload, cause in (
            (StrictName, {"name": "hunter2"}, ValueError),
            (StrictName, {"name": "ab", "size": "hunter2"}, type(None)),
        ):
            with pytest.raises(PayloadError) as caught:
                declare(kind).send(None, **payload)
            assert type(caught.value.__cause__) is cause
            assert "hunter2" not in "".join(format_exception(caught.value))

    def test_the_rule_of_attrs_is_told_in_its_words(self):
        """Attrs keeps the attribute and the value beside the text of its error."""
        with pytest.raises(PayloadError, match=r"Limited refuses it: 'amount' must be in \[1\]"):
            declare(Limited).send(None, amount=2)

    def test_post_init_is_called(self):
        """A dataclass whose ``__post_init__`` raises refuses the payload."""
        with captured():
            declare(Ordered).send(None, first=1, last=2)
        with pytest.raises(PayloadError, match="first comes after last"):
            declare(Ordered).send(None, first=2, last=1)


class TestDeclarations:
    """What cannot be declared is refused, with the remedy."""

    def test_a_version_is_a_positive_int_of_a_payload(self):
        """A version without a payload, or none at all, is refused."""
        with pytest.raises(ConfigurationError, match="declare it with payload="):
            Signal(version=2)  # type: ignore[call-overload]
        for version in (0, -1, True, "2", 1.0):
            with pytest.raises(ConfigurationError, match="give an int"):
                Signal(payload=CohortSaved, version=version)  # type: ignore[arg-type]

    def test_a_reserved_key_is_refused(self):
        """A payload has no key that receivers get anyway."""

        @dataclass
        class WithSender:
            sender: str

        with pytest.raises(ConfigurationError, match=r"WithSender\.sender: receivers get a sender"):
            declare(WithSender).send(None)

    def test_a_key_that_no_call_can_give_is_refused(self):
        """``self`` is the signal in each form of `send`."""
        with pytest.raises(ConfigurationError, match=r"WithSelf\.self: .*call the field something else"):
            declare(make_dataclass("WithSelf", [("self", int)])).send_many(None, [{"self": 1}])

    def test_a_root_model_is_refused(self):
        """Its value has no keys."""
        with pytest.raises(ConfigurationError, match=r"RootModel\[list\[int\]\] is a RootModel, which has no keys"):
            declare(pydantic.RootModel[list[int]]).send(None, root=[1])

    @pytest.mark.parametrize("function", [None, 3, "upcast"])
    def test_an_upcast_is_a_function(self, function):
        """It is found where it is declared, not in a worker."""
        with pytest.raises(ConfigurationError, match=r"upcast\(from_version=1\): .* cannot be called"):
            declare(CohortSaved, version=2).upcast(from_version=1)(function)

    def test_an_upcast_is_no_coroutine(self):
        """A worker would get a coroutine in place of a payload."""

        async def bring_up(payload):
            return payload

        with pytest.raises(ConfigurationError, match=r"bring_up at .* is a coroutine function: .* with `def`"):
            declare(CohortSaved, version=2).upcast(from_version=1)(bring_up)  # type: ignore[arg-type]

    def test_what_an_object_does_not_keep_is_refused(self):
        """An InitVar is no field."""

        @dataclass
        class WithInitVar:
            kept: int
            passed: InitVar[int]

        with pytest.raises(ConfigurationError, match="passed is an argument"):
            declare(WithInitVar).send(None)

    def test_an_alias_is_refused(self):
        """A key has one name."""

        class Aliased(pydantic.BaseModel):
            name: str = pydantic.Field(alias="Name")

        with pytest.raises(ConfigurationError, match="has the alias 'Name'"):
            declare(Aliased).send(None)

    def test_a_default_of_other_fields_is_refused(self):
        """A worker that fills in a default does not validate the other fields."""

        class Derived(pydantic.BaseModel):
            name: str
            slug: str = pydantic.Field(default_factory=lambda values: values["name"].lower())

        with pytest.raises(ConfigurationError, match=r"slug has a default_factory that takes other fields"):
            declare(Derived).send(None, name="Web")

    def test_a_payload_is_given_by_keywords(self):
        """A second positional argument is refused, also by signals without a declaration."""
        for signal in (declare(Ordered), Signal("tests.undeclared_keywords")):
            with pytest.raises(TypeError, match="the payload as keywords: give 1 a key"):
                signal.send(None, 1)


def test_an_undeclared_signal_takes_any_payload():
    """Nothing is checked without a declaration."""
    signal: Signal = Signal("tests.undeclared")
    signal.connect(on_declared)
    with captured() as sent:
        signal.send(None, anything=1)
    assert signal.contract is None
    assert payloads(sent)[0] == {"anything": 1}
