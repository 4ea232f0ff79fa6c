"""Receivers: their ids, which of them a worker can find, and which of them receive."""

from __future__ import annotations

import functools
import gc
import math
import subprocess
import sys
import textwrap
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from signalbus import Retry, Signal, receiver
from signalbus.exceptions import ConfigurationError
from signalbus.testing import captured, muted
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
    """Return the ids of a signal's receivers in workers."""
    return [entry.id for entry in signal.entries()]


def recipients(signal, sender=None):
    """Send, and return the ids in the message."""
    with captured() as sent:
        signal.send(sender)
    return [list(message.recipients) for message in sent]


class TestIds:
    def test_the_id_is_module_and_qualname(self, sale):
        """It is the place of the function."""
        sale.connect(on_sale)
        sale.connect(Till.static)
        assert ids(sale) == [f"{HERE}.on_sale", f"{HERE}.Till.static"]

    def test_the_id_has_the_senders_label(self, sale):
        """The same function may receive from several senders."""
        sale.connect(on_sale, sender=Cohort)
        sale.connect(on_sale, sender=Academy)
        assert ids(sale) == [f"{HERE}.on_sale[admissions.Cohort]", f"{HERE}.on_sale[admissions.Academy]"]

    def test_a_uid_is_the_id(self, sale):
        """A text as dispatch_uid is the id, for a sender too."""
        sale.connect(on_sale, dispatch_uid="till")
        sale.connect(on_sale_too, sender=Cohort, dispatch_uid="cohort till")
        assert ids(sale) == ["till", "cohort till"]

    def test_a_uid_that_is_no_text_is_not_the_id(self, sale):
        """Such a uid does not last."""
        sale.connect(on_sale, dispatch_uid=("till", 1))
        assert ids(sale) == [f"{HERE}.on_sale"]

    def test_a_decorated_function_keeps_its_id(self, sale):
        """A wrapper of ``functools.wraps`` has the id of the wrapped function."""
        sale.connect(decorated)
        sale.connect(decorated_too)
        assert ids(sale) == [f"{HERE}.decorated", f"{HERE}.decorated_too"]
        assert sale.conflicts == []

    def test_a_former_id_is_found(self, sale):
        """``was=`` keeps messages to a renamed receiver deliverable; a present id takes precedence."""
        sale.connect(on_sale, was=["shop.old_name"])
        sale.connect(on_sale_too, was=f"{HERE}.on_sale")
        assert sale.find("shop.old_name", None).function() is on_sale
        assert sale.find(f"{HERE}.on_sale", None).function() is on_sale
        assert sale.find("shop.nobody", None) is None

    def test_the_sender_decides_between_two_of_a_uid(self, sale):
        """Two senders' receivers may share a uid, as in Django."""
        sale.connect(on_sale, sender=Cohort, dispatch_uid="till")
        sale.connect(on_sale_too, sender=Academy, dispatch_uid="till")
        assert sale.find("till", "admissions.Cohort").function() is on_sale
        assert sale.find("till", "admissions.Academy").function() is on_sale_too
        assert recipients(sale, Cohort) == [["till"]]

    def test_lookups_follow_connect_and_disconnect(self, sale):
        """A collected receiver is not found either."""
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

    def test_a_function_at_a_collected_ones_address_is_connected(self, sale):
        """Python reuses addresses: the function is a new receiver."""
        for number in range(50):  # sooner or later an id() comes again; each time it must be well
            namespace: dict[str, object] = {"__name__": HERE}
            exec("def fleeting(sender, **kwargs): pass", namespace)
            sale.connect(namespace["fleeting"])
            assert [len(sale.split(None)[0]), len(sale.split(None)[1])] == [1, 0], number
            namespace.clear()  # ends the cycle of the function and its globals: the function dies here


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
    def test_an_unreachable_receiver_is_refused_with_the_remedy(self, sale, function, kind):
        """``connect`` refuses a receiver that a worker could not find; nothing is connected."""
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
    def test_a_text_as_uid_makes_it_reachable(self, sale, function):
        """The receiver is found in a worker by its uid."""
        sale.connect(function, dispatch_uid="till", weak=False)
        assert recipients(sale) == [["till"]]

    @pytest.mark.parametrize("uid", ["till\0", "till\n", "x" * 513])
    def test_a_uid_that_a_column_cannot_store_is_refused(self, sale, uid):
        """``connect`` raises, before it is needed."""
        with pytest.raises(ConfigurationError, match="printable characters: give it a dispatch_uid"):
            sale.connect(on_sale, dispatch_uid=uid)

    def test_a_sender_without_a_name(self, sale):
        """Django takes any object as a sender; without a name it is for inline receivers."""
        with pytest.raises(ConfigurationError, match="inline=True"):
            sale.connect(on_sale, sender=17)
        sale.connect(on_sale, sender=TILL, inline=True)
        assert sale.send(TILL) == [(on_sale, None)]

    def test_receivers_of_main_are_refused(self):
        """A worker cannot import ``__main__``; a script may send."""
        program = textwrap.dedent("""
            import os, django
            os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
            django.setup()
            from signalbus import receiver
            from signalbus.testing import captured, muted
            from tasks.admissions.models import Academy, Cohort
            from tasks.admissions.signals import cohort_saved
            with captured() as sent:
                cohort_saved.send(sender=Cohort, instance=None, created=False)
            print(len(sent))
            @receiver(cohort_saved, inline=True)
            def here(sender, **kwargs): pass
            @receiver(cohort_saved, dispatch_uid="connected in every process")
            def everywhere(sender, **kwargs): pass
            @receiver(cohort_saved)
            def nowhere(sender, **kwargs): pass
        """)
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert ran.stdout == "1\n", ran.stderr
        last = ran.stderr.splitlines()[-1]
        assert "ConfigurationError: <function nowhere" in last
        assert "__main__" in last
        assert "Connect a function of a module" in last

    @pytest.mark.parametrize("mock", [Mock(), MagicMock(name="till"), AsyncMock()])
    def test_a_mock_is_refused_and_the_error_names_the_tools_for_tests(self, sale, mock):
        """The error names the tools for tests."""
        with pytest.raises(ConfigurationError, match="a mock") as raised:
            sale.connect(mock)
        assert "signalbus.testing" in str(raised.value)
        assert "inline=True" in str(raised.value)
        sale.connect(mock, inline=True)
        sale.send_robust(None)
        assert mock.call_count == 1

    def test_a_staticmethod_object_is_unwrapped(self, sale):
        """``@receiver`` works above and below ``@staticmethod``, and disconnects."""

        class Shop:
            @receiver(sale, dispatch_uid="shop")
            @staticmethod
            def travelling(sender, **kwargs):
                return "from a worker"

            @receiver(sale, inline=True)
            @staticmethod
            def inline(sender, **kwargs):
                return "from here"

        assert recipients(sale) == [["shop"]]
        with captured():
            assert sale.send_robust(None) == [(Shop.inline, "from here")]
        assert sale.find("shop", None).function() is Shop.travelling
        assert sale.disconnect(vars(Shop)["inline"])
        with captured():
            assert sale.send_robust(None) == []

    @pytest.mark.parametrize("options", [{}, {"inline": True}, {"dispatch_uid": "till"}])
    def test_a_classmethod_object_is_refused_with_the_remedy(self, sale, options):
        """A `classmethod` object cannot be called before its class exists."""
        with pytest.raises(ConfigurationError, match=r"classmethod.*after the class"):
            sale.connect(vars(Till)["of_class"], **options)
        assert not sale.has_listeners()

    def test_inline_accepts_any_callable(self, sale):
        """Inline, everything is called that Django calls."""
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
        """Django ignores the second silently; a send raises, and names both places."""
        sale.connect(on_sale, dispatch_uid="till")
        sale.connect(on_sale_too, dispatch_uid="till")
        self.expect(sale, None, "test_receivers.on_sale ", "test_receivers.on_sale_too", "test_receivers.py:")

    def test_two_functions_of_one_name(self, sale):
        """Two functions of one qualified name that both exist cannot be told apart."""
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
        """Django would call both for that sender; one id would reach only one."""
        sale.connect(on_sale, dispatch_uid="till")
        sale.connect(on_sale_too, sender=Cohort, dispatch_uid="till")
        self.expect(sale, Cohort, "on_sale ", "on_sale_too")

    def test_one_function_under_two_uids_that_are_no_ids(self, sale):
        """Django would call it twice; one id would run it once."""
        sale.connect(on_sale, dispatch_uid=1)
        sale.connect(on_sale, dispatch_uid=2)
        self.expect(sale, None, f"{HERE}.on_sale")

    def test_connecting_the_same_again_is_no_conflict(self, sale):
        """This holds with and without a uid."""
        for _ in range(2):
            sale.connect(on_sale)
            sale.connect(on_sale_too, dispatch_uid="till")
        assert recipients(sale) == [[f"{HERE}.on_sale", "till"]]

    def test_disconnecting_ends_a_conflict(self, sale):
        """The other receiver receives."""
        sale.connect(on_sale, dispatch_uid="till")
        sale.connect(on_sale_too, sender=Cohort, dispatch_uid="till")
        sale.disconnect(sender=Cohort, dispatch_uid="till")
        assert recipients(sale, Cohort) == [["till"]]

    def test_inline_receivers_have_no_conflict(self, sale):
        """As in Django, the second of a uid is ignored."""
        sale.connect(on_sale, dispatch_uid="till", inline=True)
        sale.connect(on_sale_too, dispatch_uid="till", inline=True)
        assert sale.send(None) == [(on_sale, None)]

    def test_a_reloaded_module_has_no_conflict(self, sale):
        """The newer function from the same line receives."""
        for _ in range(2):
            namespace: dict[str, object] = {"__name__": HERE}
            exec("def reloaded(sender, **kwargs): pass", namespace)
            sale.connect(namespace["reloaded"], weak=False)
        assert recipients(sale) == [[f"{HERE}.reloaded"]]
        assert sale.find(f"{HERE}.reloaded", None).function() is namespace["reloaded"]


class TestConnectingAgain:
    """A second connect with the same options changes nothing; with other options it is an error."""

    @pytest.mark.parametrize(
        "options",
        [
            {"retry": Retry(max_attempts=3)},
            {"queue": "tills"},
            {"atomic": False},
            {"on_missing": "fail"},
            {"timeout": 2},
            {"was": ["shop.old"]},
            {"inline": True},
        ],
    )
    @pytest.mark.parametrize("uid", [None, "till"])
    def test_other_options_are_an_error(self, sale, options, uid):
        """The error names both places and the difference; the first connection stays."""
        sale.connect(on_sale, dispatch_uid=uid)
        here = sys._getframe().f_lineno - 1
        with pytest.raises(ConfigurationError) as raised:
            sale.connect(on_sale, dispatch_uid=uid, **options)
        assert f"{HERE}:{here}" in str(raised.value)
        assert f"{HERE}:{here + 3}" in str(raised.value)
        assert next(iter(options)) in str(raised.value)
        (entry,) = sale.entries()
        assert (entry.queue, entry.retry, entry.atomic, entry.timeout) == (None, Retry(), True, None)

    def test_from_inline_to_a_worker_is_an_error_too(self, sale):
        """In either order Django would ignore the second."""
        sale.connect(on_sale, inline=True)
        with pytest.raises(ConfigurationError, match="inline"):
            sale.connect(on_sale)
        assert sale.send(None) == [(on_sale, None)]

    def test_the_same_options_are_no_error(self, sale):
        """This is as in Django."""
        for _ in range(2):
            sale.connect(on_sale, retry=Retry(max_attempts=3), queue="tills", was="shop.old")
            sale.connect(on_sale_too, inline=True)
        assert recipients(sale) == [[f"{HERE}.on_sale"]]

    def test_the_decorators_errors_name_the_projects_lines(self, sale):
        """Neither place is in the decorators' own code."""
        receiver(sale)(on_sale)
        here = sys._getframe().f_lineno - 1
        with pytest.raises(ConfigurationError) as raised:
            receiver(sale, queue="tills")(on_sale)
        assert f"{HERE}:{here}" in str(raised.value)
        assert f"{HERE}:{here + 3}" in str(raised.value)

    def test_disconnect_allows_other_options(self, sale):
        """Another policy is a disconnect and a connect."""
        sale.connect(on_sale)
        sale.disconnect(on_sale)
        sale.connect(on_sale, queue="tills")
        sale.disconnect(on_sale)
        sale.connect(on_sale, inline=True)
        sale.disconnect(on_sale)
        sale.connect(on_sale)
        assert recipients(sale) == [[f"{HERE}.on_sale"]]

    def test_an_emptied_list_allows_other_options(self, sale):
        """Some test tools take Django's list away for a while."""
        sale.connect(on_sale, was=["shop.old"])
        sale.receivers = []
        sale.connect(on_sale, queue="tills")
        (entry,) = sale.entries()
        assert entry.queue == "tills"
        assert sale.find("shop.old", None) is None
        assert recipients(sale) == [[f"{HERE}.on_sale"]]

    def test_a_module_under_two_names_connects_a_uid_once(self, sale, tmp_path):
        """As in Django, a receiver of one file and line is one receiver."""
        path = tmp_path / "receivers.py"
        path.write_text("def on_sale(sender, **kwargs): pass\n")
        namespaces: list[dict[str, object]] = [{"__name__": name} for name in ("shop.receivers", "receivers")]
        for namespace in namespaces:
            exec(compile(path.read_text(), str(path), "exec"), namespace)
            sale.connect(namespace["on_sale"], dispatch_uid="shop")
        assert sale.conflicts == []
        assert recipients(sale) == [["shop"]]
        with pytest.raises(ConfigurationError, match="queue"):
            sale.connect(namespaces[1]["on_sale"], dispatch_uid="shop", queue="tills")


class TestCollectedReceivers:
    """A collected receiver leaves nothing behind."""

    @pytest.mark.parametrize("caching", [False, True])
    @pytest.mark.parametrize("uid", [False, True])
    def test_collected_receivers_leave_no_entries(self, caching, uid):
        """5,000 receivers that were connected and collected are not remembered."""
        sale = Signal("tests.fleeting_sale", use_caching=caching)
        sale.connect(on_sale)
        for number in range(5000):

            def fleeting(sender, **kwargs):
                pass

            sale.connect(fleeting, **({"dispatch_uid": f"fleeting {number}"} if uid else {"inline": True}))
            if not number % 1000:
                with muted():
                    sale.send(None)
        del fleeting
        gc.collect()
        assert recipients(sale) == [[f"{HERE}.on_sale"]]
        assert len(sale.receivers) == len(sale._subscriptions.entries) == len(sale._subscriptions._sites) == 1
        assert sale.conflicts == []

    def test_receivers_of_a_replaced_list_are_not_forgotten(self, sale):
        """Some test tools take Django's list away and give it back; its receivers still receive."""

        def fleeting(sender, **kwargs):
            pass

        sale.connect(on_sale)
        away, sale.receivers = sale.receivers, []
        sale.connect(fleeting, inline=True)
        del fleeting
        gc.collect()
        assert sale.send(None) == []
        sale.receivers = away
        assert recipients(sale) == [[f"{HERE}.on_sale"]]

    def test_a_lookup_forgets_collected_receivers(self, sale):
        """A worker never sends; it only looks up."""

        def fleeting(sender, **kwargs):
            pass

        sale.connect(fleeting, dispatch_uid="fleeting")
        del fleeting
        gc.collect()
        assert sale.find("fleeting", None) is None
        assert len(sale._subscriptions.entries) == 0

    def test_the_id_of_a_collected_receiver_is_free(self, sale):
        """Another receiver may have it."""
        for line in range(3):
            namespace: dict[str, object] = {"__name__": HERE}
            exec("\n" * line + "def twin(sender, **kwargs): pass", namespace)
            sale.connect(namespace["twin"])
            del namespace
            gc.collect()
            assert sale.conflicts == []


class TestRecipients:
    def test_the_recipients_are_the_receivers_that_django_calls(self, sale):
        """They are the connected receivers of this sender, in the order of connection."""
        sale.connect(on_sale_too)
        sale.connect(on_sale, sender=Cohort)
        sale.connect(decorated, sender=Academy)
        assert recipients(sale, Cohort) == [[f"{HERE}.on_sale_too", f"{HERE}.on_sale[admissions.Cohort]"]]
        assert recipients(sale, None) == [[f"{HERE}.on_sale_too"]]

    def test_an_instance_as_sender_reaches_its_own_receivers(self, sale):
        """As in Django, a receiver of one object receives from no other, nor from its class."""
        cohort, other = Cohort(pk=1), Cohort(pk=1)
        sale.connect(on_sale, sender=cohort)
        assert sale.has_listeners(cohort)
        assert not sale.has_listeners(other)
        assert not sale.has_listeners(Cohort)

    def test_caching_tells_equal_instances_apart(self):
        """Two instances of one row are equal, but two senders."""
        sale = Signal("tests.cached_sale", use_caching=True)
        cohort, other = Cohort(pk=1), Cohort(pk=1)
        sale.connect(on_sale, sender=cohort)
        assert sale.has_listeners(cohort)
        assert not sale.has_listeners(other)

    @pytest.mark.parametrize("caching", [False, True])
    def test_worker_and_inline_receivers_side_by_side(self, caching):
        """Each runs once: one in the worker, one in this process."""
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
        """A worker asks for the queues of the receivers."""
        from signalbus.registration.registry import registry

        sale.connect(on_sale, queue="tills")
        assert "tills" in registry.queues()


class TestPolicies:
    def test_the_policy_of_a_receiver_is_registered(self, sale):
        """The worker finds all its options."""
        policy = Retry(max_attempts=3)
        sale.connect(on_sale, retry=policy, queue="tills", atomic=False, on_missing="fail", timeout=1.5)
        (entry,) = sale.entries()
        assert (entry.retry, entry.queue, entry.atomic, entry.policy.on_missing, entry.timeout) == (
            policy,
            "tills",
            False,
            "fail",
            1.5,
        )

    def test_a_text_as_relation_is_one_name(self, sale):
        """The text is not read letter by letter."""
        sale.connect(on_sale, select_related={"instance": "cohort", "others": ["a", "b__c"]})
        (entry,) = sale.entries()
        assert entry.policy.select_related == {"instance": ("cohort",), "others": ("a", "b__c")}

    def test_options_have_defaults(self, sale):
        """Each option works without a value."""
        sale.connect(on_sale)
        (entry,) = sale.entries()
        assert (entry.retry, entry.queue, entry.atomic, entry.policy.on_missing, entry.timeout, entry.is_async) == (
            Retry(),
            None,
            True,
            "skip",
            None,
            False,
        )

    def test_a_project_has_defaults_of_its_own(self, sale, settings):
        """The settings for retry, queue, atomic and timeout apply to receivers without these options."""
        sale.connect(on_sale)
        sale.connect(
            on_sale_too, retry=Retry(max_attempts=2), queue="tills", atomic=True, timeout=2, dispatch_uid="said"
        )
        settings.SIGNALBUS = {"RETRY": {"max_attempts": 5}, "ATOMIC": False, "TIMEOUT": 30, "QUEUE": "shop"}
        silent, said = sale.entries()
        assert (silent.retry, silent.atomic, silent.timeout) == (Retry(max_attempts=5), False, 30.0)
        assert (said.retry.max_attempts, said.atomic, said.timeout, said.queue) == (2, True, 2, "tills")
        settings.SIGNALBUS = {"RETRY": Retry(max_attempts=6)}
        assert silent.retry.max_attempts == 6
        assert (silent.atomic, silent.timeout) == (True, None)

    def test_connecting_reads_no_settings(self):
        """Receivers are connected at import, possibly before the settings; these apply later."""
        program = textwrap.dedent("""
            import sys, types
            sys.modules["shop"] = shop = types.ModuleType("shop")
            from signalbus import Signal
            exec("def on_sale(sender, **kwargs): pass", vars(shop))
            sale = Signal("shop.sale")
            sale.connect(shop.on_sale)
            import django
            from django.conf import settings
            settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "signalbus"], SIGNALBUS={"TIMEOUT": 7})
            django.setup()
            print([entry.timeout for entry in sale.entries()])
        """)
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert ran.stdout == "[7.0]\n", ran.stderr

    def test_async_receivers_are_recognized(self, sale):
        """These are coroutine functions and objects with an async ``__call__``."""
        sale.connect(on_sale_async)
        sale.connect(AsyncTill(), dispatch_uid="object", weak=False)
        assert [entry.is_async for entry in sale.entries()] == [True, True]

    @pytest.mark.parametrize(
        ("wrong", "remedy"),
        [
            ({"on_missing": "explode"}, '"skip", "fail" or "snapshot"'),
            ({"on_missing": ["skip"]}, '"skip", "fail" or "snapshot"'),
            ({"atomic": "no"}, "say True or False"),
            ({"timeout": True}, "above 0"),
            ({"was": 5}, "give the ids"),
            ({"was": None}, "give the ids"),
            ({"was": ""}, "give the ids"),
            ({"was": ["tests.old", 7]}, "give the ids"),
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
    def test_a_meaningless_option_is_refused(self, sale, wrong, remedy):
        """The error says what to write."""
        with pytest.raises(ConfigurationError) as raised:
            sale.connect(on_sale, **wrong)
        assert remedy in str(raised.value)
        assert not sale.has_listeners()

    def test_the_decorator_takes_a_policy(self, sale):
        """``receiver`` passes all options on."""
        receiver(sale, sender=Cohort, retry=Retry(max_attempts=5), queue="email")(on_sale)
        (entry,) = sale.entries()
        assert (entry.queue, entry.retry.max_attempts) == ("email", 5)
