"""Receivers: their ids, which of them cannot travel, and who receives."""

from __future__ import annotations

import functools
import gc
import math

import pytest

from signalbus import Retry, Signal, receiver
from signalbus.exceptions import ConfigurationError
from signalbus.testing import captured
from tasks.admissions.models import Academy, Cohort

HERE = "tests.unit.test_receivers"


def logged(function):
    """Decorate, as projects do."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def on_sale(sender, **kwargs):
    """Receive."""


def on_sale_too(sender, **kwargs):
    """Receive as well."""


@logged
def decorated(sender, **kwargs):
    """Receive through a wrapper."""


@logged
def decorated_too(sender, **kwargs):
    """Receive through a wrapper of the same decorator."""


async def on_sale_async(sender, **kwargs):
    """Receive in a coroutine."""


class Till:
    """A class with receivers of all kinds."""

    @staticmethod
    def static(sender, **kwargs):
        """Receive."""

    @classmethod
    def of_class(cls, sender, **kwargs):
        """Receive, bound to the class."""

    def method(self, sender, **kwargs):
        """Receive, bound to an object."""

    def __call__(self, sender, **kwargs):
        """Receive, as an object."""


class AsyncTill:
    """An object that is an async receiver."""

    async def __call__(self, sender, **kwargs):
        """Receive, in a coroutine."""


TILL = Till()


@pytest.fixture
def sale():
    """Give a signal."""
    return Signal("tests.sale")


def ids(signal):
    """Give the ids of a signal's travelling receivers."""
    return [entry.id for entry in signal.entries()]


def recipients(signal, sender=None):
    """Send, and give the ids that the message carries."""
    with captured() as sent:
        signal.send(sender)
    return [list(message.recipients) for message in sent]


class TestIds:
    def test_module_and_qualname(self, sale):
        """A function is called by where it stands."""
        sale.connect(on_sale)
        sale.connect(Till.static)
        assert ids(sale) == [f"{HERE}.on_sale", f"{HERE}.Till.static"]

    def test_with_the_senders_label(self, sale):
        """A sender's own receiver carries its label: the same function may receive from several."""
        sale.connect(on_sale, sender=Cohort)
        sale.connect(on_sale, sender=Academy)
        assert ids(sale) == [f"{HERE}.on_sale[admissions.Cohort]", f"{HERE}.on_sale[admissions.Academy]"]

    def test_a_uid_is_the_id(self, sale):
        """A text as dispatch_uid is the id, for a sender too."""
        sale.connect(on_sale, dispatch_uid="till")
        sale.connect(on_sale_too, sender=Cohort, dispatch_uid="cohort till")
        assert ids(sale) == ["till", "cohort till"]

    def test_another_uid_is_not(self, sale):
        """What is no text is no id that lasts."""
        sale.connect(on_sale, dispatch_uid=("till", 1))
        assert ids(sale) == [f"{HERE}.on_sale"]

    def test_a_decorated_function_keeps_its_name(self, sale):
        """A wrapper made with ``functools.wraps`` goes by the name of what it wraps."""
        sale.connect(decorated)
        sale.connect(decorated_too)
        assert ids(sale) == [f"{HERE}.decorated", f"{HERE}.decorated_too"]
        assert sale.conflicts == []

    def test_a_former_id_is_found(self, sale):
        """``was=`` keeps messages to a renamed receiver deliverable; the id of today wins."""
        sale.connect(on_sale, was=["shop.old_name"])
        sale.connect(on_sale_too, was=f"{HERE}.on_sale")
        assert sale.find("shop.old_name", None).function() is on_sale
        assert sale.find(f"{HERE}.on_sale", None).function() is on_sale
        assert sale.find("shop.nobody", None) is None

    def test_the_sender_decides_between_two_of_a_uid(self, sale):
        """Where two senders' receivers share a uid, as Django allows, the message's sender tells which is meant."""
        sale.connect(on_sale, sender=Cohort, dispatch_uid="till")
        sale.connect(on_sale_too, sender=Academy, dispatch_uid="till")
        assert sale.find("till", "admissions.Cohort").function() is on_sale
        assert sale.find("till", "admissions.Academy").function() is on_sale_too
        assert recipients(sale, Cohort) == [["till"]]

    def test_finding_follows_connecting(self, sale):
        """Who is connected later is found, who is disconnected or dead is not."""
        assert sale.find("till", None) is None
        sale.connect(on_sale, dispatch_uid="till")
        assert sale.find("till", None) is not None
        sale.disconnect(dispatch_uid="till")
        assert sale.find("till", None) is None

        def short_lived(sender, **kwargs):
            pass

        sale.connect(short_lived, dispatch_uid="short")
        assert sale.find("short", None) is not None
        del short_lived
        gc.collect()
        assert sale.find("short", None) is None
        assert sale.entries() == []

    def test_a_dead_receivers_identity_is_not_inherited(self, sale):
        """A function that gets a dead one's place in memory is connected anew, and travels."""
        for number in range(50):  # sooner or later an id() comes again; each time it must be well
            namespace: dict[str, object] = {"__name__": HERE}
            exec("def fleeting(sender, **kwargs): pass", namespace)
            sale.connect(namespace["fleeting"])
            assert [len(sale._split(None)[0]), len(sale._split(None)[1])] == [1, 0], number
            del namespace
            gc.collect()


class TestUnreachable:
    @pytest.mark.parametrize(
        ("function", "kind"),
        [
            (lambda **kwargs: None, "a lambda"),
            (TILL.method, "a bound method"),
            (Till.of_class, "a bound method"),
            (TILL, "an object"),
            (functools.partial(on_sale, None), "an object"),
        ],
    )
    def test_it_is_refused_with_the_cure(self, sale, function, kind):
        """What a worker could not find again is refused at ``connect``; nothing stays connected."""
        with pytest.raises(ConfigurationError, match=kind) as raised:
            sale.connect(function)
        assert "dispatch_uid=" in str(raised.value)
        assert "inline=True" in str(raised.value)
        assert not sale.has_listeners()

    def test_a_closure_is_refused(self, sale):
        """A function inside a function has no lasting name."""

        def inner(sender, **kwargs):
            pass

        with pytest.raises(ConfigurationError, match="a function inside a function"):
            sale.connect(inner)
        with pytest.raises(ConfigurationError, match="a function inside a function"):
            sale.connect(inner, dispatch_uid=17)

    @pytest.mark.parametrize("function", [TILL.method, TILL, Till.of_class, functools.partial(on_sale, None)])
    def test_a_uid_is_a_cure(self, sale, function):
        """With a uid of text it travels under that."""
        sale.connect(function, dispatch_uid="till", weak=False)
        assert recipients(sale) == [["till"]]

    @pytest.mark.parametrize("uid", ["till\0", "till\n", "x" * 513])
    def test_a_uid_that_no_table_can_hold(self, sale, uid):
        """What could not be kept or shown is refused before it is needed."""
        with pytest.raises(ConfigurationError, match="printable characters: give it a dispatch_uid"):
            sale.connect(on_sale, dispatch_uid=uid)

    def test_a_sender_without_a_name(self, sale):
        """Django takes any object as a sender; one that has no name elsewhere is for inline receivers."""
        with pytest.raises(ConfigurationError, match="inline=True"):
            sale.connect(on_sale, sender=17)
        sale.connect(on_sale, sender=TILL, inline=True)
        assert sale.send(TILL) == [(on_sale, None)]

    def test_inline_is_a_cure(self, sale):
        """Inline, anything that Django calls is called."""
        sale.connect(TILL, inline=True)
        assert sale.send(None) == [(TILL, None)]


class TestConflicts:
    def expect(self, signal, sender, *places):
        """Sending raises, and names the places."""
        with captured() as sent, pytest.raises(ConfigurationError, match=r"Two receivers are called") as raised:
            signal.send(sender)
        assert not sent
        assert all(place in str(raised.value) for place in places)

    def test_two_receivers_of_one_uid(self, sale):
        """Django ignores the second quietly; on the bus both were meant, so sending names both places."""
        sale.connect(on_sale, dispatch_uid="till")
        sale.connect(on_sale_too, dispatch_uid="till")
        self.expect(sale, None, "test_receivers.on_sale ", "test_receivers.on_sale_too", "test_receivers.py:")

    def test_two_functions_of_one_name(self, sale):
        """Two functions of one qualified name, both kept, cannot be told apart."""
        functions = []
        for line in range(2):
            namespace: dict[str, object] = {"__name__": HERE}
            exec("\n" * line + "def twin(sender, **kwargs): pass", namespace)
            functions.append(namespace["twin"])
            sale.connect(namespace["twin"])
        self.expect(sale, None, f"{HERE}.twin")
        del functions[0], namespace
        gc.collect()
        assert len(recipients(sale)) == 1

    def test_one_uid_for_a_sender_and_for_all(self, sale):
        """Django would call both for that sender; one id would reach but one."""
        sale.connect(on_sale, dispatch_uid="till")
        sale.connect(on_sale_too, sender=Cohort, dispatch_uid="till")
        self.expect(sale, Cohort, "on_sale ", "on_sale_too")

    def test_one_function_under_two_uids_that_are_no_ids(self, sale):
        """Django would call it twice; one id would run it once."""
        sale.connect(on_sale, dispatch_uid=1)
        sale.connect(on_sale, dispatch_uid=2)
        self.expect(sale, None, f"{HERE}.on_sale")

    def test_connecting_the_same_again_is_none(self, sale):
        """Connecting a receiver twice is no conflict, with or without a uid."""
        for _ in range(2):
            sale.connect(on_sale)
            sale.connect(on_sale_too, dispatch_uid="till")
        assert recipients(sale) == [[f"{HERE}.on_sale", "till"]]

    def test_disconnecting_ends_it(self, sale):
        """When one of the two goes, the other receives."""
        sale.connect(on_sale, dispatch_uid="till")
        sale.connect(on_sale_too, sender=Cohort, dispatch_uid="till")
        sale.disconnect(sender=Cohort, dispatch_uid="till")
        assert recipients(sale, Cohort) == [["till"]]

    def test_inline_ones_have_none(self, sale):
        """Inline receivers behave as Django's: the second of a uid is ignored."""
        sale.connect(on_sale, dispatch_uid="till", inline=True)
        sale.connect(on_sale_too, dispatch_uid="till", inline=True)
        assert sale.send(None) == [(on_sale, None)]

    def test_a_module_loaded_again_has_none(self, sale):
        """The same function from the same line, kept strongly both times: the newer one receives."""
        for _ in range(2):
            namespace: dict[str, object] = {"__name__": HERE}
            exec("def reloaded(sender, **kwargs): pass", namespace)
            sale.connect(namespace["reloaded"], weak=False)
        assert recipients(sale) == [[f"{HERE}.reloaded"]]
        assert sale.find(f"{HERE}.reloaded", None).function() is namespace["reloaded"]


class TestWhoReceives:
    def test_exactly_those_that_django_has(self, sale):
        """The recipients are the connected receivers of this sender, in the order of their connection."""
        sale.connect(on_sale_too)
        sale.connect(on_sale, sender=Cohort)
        sale.connect(decorated, sender=Academy)
        assert recipients(sale, Cohort) == [[f"{HERE}.on_sale_too", f"{HERE}.on_sale[admissions.Cohort]"]]
        assert recipients(sale, None) == [[f"{HERE}.on_sale_too"]]

    def test_an_instance_as_sender_is_itself(self, sale):
        """As in Django, a receiver of one object hears no other, nor its class."""
        cohort, other = Cohort(pk=1), Cohort(pk=1)
        sale.connect(on_sale, sender=cohort)
        assert sale.has_listeners(cohort)
        assert not sale.has_listeners(other)
        assert not sale.has_listeners(Cohort)

    def test_caching_takes_no_instance_for_another(self):
        """Two instances of one row are equal, but they are two senders, with caching too."""
        sale = Signal("tests.cached_sale", use_caching=True)
        cohort, other = Cohort(pk=1), Cohort(pk=1)
        sale.connect(on_sale, sender=cohort)
        assert sale.has_listeners(cohort)
        assert not sale.has_listeners(other)

    @pytest.mark.parametrize("caching", [False, True])
    def test_travelling_and_inline_side_by_side(self, caching):
        """The message carries the one, this process runs the other; each only once."""
        sale = Signal("tests.mixed_sale", use_caching=caching)
        sale.connect(on_sale, sender=Cohort)
        sale.connect(on_sale_too, sender=Cohort, inline=True)
        for _ in range(2):  # the second time from the cache
            with captured() as sent:
                responses = sale.send(Cohort)
            assert responses == [(on_sale_too, None)]
            assert [message.recipients for message in sent] == [(f"{HERE}.on_sale[admissions.Cohort]",)]
        assert sale.disconnect(on_sale, sender=Cohort)
        assert recipients(sale, Cohort) == []
        assert sale.has_listeners(Cohort)

    def test_queues_are_known_to_the_registry(self, sale):
        """A worker asks which queues the receivers want."""
        from signalbus.registry import registry

        sale.connect(on_sale, queue="tills")
        assert "tills" in registry.queues()


class TestPolicies:
    def test_what_is_said_is_kept(self, sale):
        """A receiver's whole policy is where the worker looks."""
        policy = Retry(max_attempts=3)
        sale.connect(on_sale, retry=policy, queue="tills", atomic=False, on_missing="fail", timeout=1.5)
        (entry,) = sale.entries()
        assert (entry.retry, entry.queue, entry.atomic, entry.on_missing, entry.timeout) == (
            policy,
            "tills",
            False,
            "fail",
            1.5,
        )

    def test_a_relation_alone_is_one(self, sale):
        """A text where several may stand is one name, not its letters."""
        sale.connect(on_sale, select_related={"instance": "cohort", "others": ["a", "b__c"]})
        (entry,) = sale.entries()
        assert entry.select_related == {"instance": ("cohort",), "others": ("a", "b__c")}

    def test_defaults(self, sale):
        """What is not said has a default that works."""
        sale.connect(on_sale)
        (entry,) = sale.entries()
        assert (entry.retry, entry.queue, entry.atomic, entry.on_missing, entry.timeout, entry.is_async) == (
            Retry(),
            None,
            True,
            "skip",
            None,
            False,
        )

    def test_async_is_seen(self, sale):
        """Coroutine functions are known as such, and objects whose call is one."""
        sale.connect(on_sale_async)
        sale.connect(AsyncTill(), dispatch_uid="object", weak=False)
        assert [entry.is_async for entry in sale.entries()] == [True, True]

    @pytest.mark.parametrize(
        ("wrong", "cure"),
        [
            ({"on_missing": "explode"}, '"skip", "fail" or "snapshot"'),
            ({"select_related": ("cohort",)}, 'select_related={"instance": ("cohort__academy",)}'),
            ({"select_related": "cohort"}, "give payload keys"),
            ({"select_related": {"instance": 7}}, "give payload keys"),
            ({"select_related": {"instance": (7,)}}, "give payload keys"),
            ({"select_related": {7: ("cohort",)}}, "give payload keys"),
            ({"select_related": {"instance": ("",)}}, "give payload keys"),
            ({"timeout": 0}, "above 0"),
            ({"timeout": "5"}, "above 0"),
            ({"timeout": math.nan}, "above 0"),
            ({"retry": 5}, "Retry(max_attempts=5)"),
            ({"queue": ""}, "is a text"),
            ({"queue": "tills\0"}, "is a text"),
            ({"queue": 7}, "is a text"),
        ],
    )
    def test_what_means_nothing_is_refused(self, sale, wrong, cure):
        """The refusal says what to write."""
        with pytest.raises(ConfigurationError) as raised:
            sale.connect(on_sale, **wrong)
        assert cure in str(raised.value)
        assert not sale.has_listeners()

    def test_the_decorator_takes_a_policy(self, sale):
        """``receiver`` hands everything on."""
        receiver(sale, sender=Cohort, retry=Retry(max_attempts=5), queue="email")(on_sale)
        (entry,) = sale.entries()
        assert (entry.queue, entry.retry.max_attempts) == ("email", 5)
