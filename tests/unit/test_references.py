"""References: which classes and functions a message may name, and how a worker looks them up."""

from __future__ import annotations

import http
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ModelState, ProjectState
from django.test import modify_settings, override_settings
from django.utils.functional import SimpleLazyObject
from django.utils.safestring import mark_safe

from signalbus.exceptions import PayloadError, UnknownClass
from signalbus.wire import codec
from signalbus.wire.codec import decode
from signalbus.wire.values import class_names, references
from signalbus.wire.values.class_names import allow_sender, name_of, resolve_class
from signalbus.wire.values.references import Reference, Snapshot, is_foreign, reference_from, reference_to
from tasks.admissions.models import Academy, Cohort

from .wire_app import models
from .wire_values import encode, rows, same, saved

HERE = "tests.unit.wire_app.models"


@pytest.fixture(scope="module", autouse=True)
def wire_app():
    """Install the app that the test models and classes belong to."""
    with modify_settings(INSTALLED_APPS={"append": "tests.unit.wire_app"}):
        yield


@pytest.fixture
def restored_senders(monkeypatch):
    """Undo at its end which restored_senders a test made resolvable."""
    monkeypatch.setattr(class_names, "_senders", {})


def outside_function() -> None:
    """A function of a module that belongs to no app."""


class Outside:
    """A class of a module that belongs to no app."""


def arrives(sender: object) -> object:
    return decode(encode(sender, {}), rows)[0]


@pytest.mark.parametrize(
    "sender",
    [None, "", "text", "\ud83d\ude00", Cohort, models.ThingProxy, models.Base, models.Plain, models.Plain.announce,
     models.Size, models.Plain.Inner, models.Point, models.plain_function],
)  # fmt: skip
def test_a_sender_arrives_as_the_same_object(sender):
    """These are None, texts, and classes and functions of installed apps."""
    assert sender == arrives(sender)


def test_an_instance_as_sender_is_loaded():
    """A model instance can send, wrapped or not."""
    cohort = saved(Cohort, pk=3)

    assert same(cohort, arrives(cohort))
    assert same(cohort, arrives(SimpleLazyObject(lambda: cohort)))


@pytest.mark.parametrize(
    ("sender", "name"),
    [
        (None, None),
        ("shop", "shop"),
        (mark_safe("shop"), "shop"),
        (Cohort, "admissions.Cohort"),
        (models.ThingProxy, "wire_app.ThingProxy"),
        (Cohort(), "admissions.Cohort"),
        (SimpleLazyObject(lambda: Cohort(pk=1)), "admissions.Cohort"),
        (models.Plain, f"{HERE}:Plain"),
        (models.Plain.Inner, f"{HERE}:Plain.Inner"),
        (models.plain_function, f"{HERE}:plain_function"),
        (http.HTTPStatus, "http:HTTPStatus"),
    ],
)
def test_a_sender_has_a_stable_name(sender, name):
    """Look-ups compare names; an instance counts as its class."""
    assert name == name_of(sender)


@pytest.mark.parametrize("sender", [object(), 1, b"x", [], Outside()])
def test_any_other_object_has_no_name(sender):
    """An object that another process cannot name is no sender."""
    with pytest.raises(PayloadError, match="a class, a function"):
        name_of(sender)
    with pytest.raises(PayloadError) as caught:
        encode(sender, {})
    assert caught.value.path == "sender"


def test_a_sender_that_raises_is_refused():
    """The error of a lazy sender is a PayloadError."""
    with pytest.raises(PayloadError, match="ZeroDivisionError") as caught:
        encode(SimpleLazyObject(lambda: 1 / 0), {})

    assert caught.value.path == "sender"


@pytest.mark.parametrize("sender", [Outside, outside_function, http.HTTPStatus, subprocess.Popen, len, str])
def test_a_class_outside_the_apps_is_refused(sender, restored_senders):
    """A worker must not import its module."""
    with pytest.raises(PayloadError, match="installed apps") as caught:
        encode(sender, {})

    assert caught.value.path == "sender"


@pytest.mark.parametrize("sender", [Outside, outside_function])
def test_a_connected_sender_is_allowed(sender, restored_senders):
    """A receiver that is connected for a sender makes it resolvable."""
    allow_sender(sender)

    assert sender is arrives(sender)


def test_a_connected_sender_is_no_value(restored_senders):
    """A connected sender may be sent as a sender, but not be constructed as a value."""
    allow_sender(http.HTTPStatus)

    with pytest.raises(PayloadError):
        encode(None, {"x": http.HTTPStatus.OK})
    with pytest.raises(UnknownClass):
        decode('[null,{"x":{"$enum":["http:HTTPStatus","OK"]}}]', rows)


@pytest.mark.parametrize("sender", [None, "x", Cohort, object(), Cohort(pk=1), models.nameless, models.local_class()])
def test_only_named_classes_and_functions_are_remembered(sender, restored_senders):
    """Other restored_senders need no permission."""
    allow_sender(sender)

    assert class_names._senders == {}


@pytest.mark.parametrize("sender", [models.nameless, models.local_class(), lambda: None])
def test_a_local_class_or_function_is_refused(sender, restored_senders):
    """A lambda or a local class cannot be found again."""
    allow_sender(sender)

    with pytest.raises(PayloadError, match="no worker finds it"):
        encode(sender, {})


def test_a_class_that_its_module_does_not_have_is_refused():
    """A second class of the name would arrive as the other one."""
    impostor = type("Plain", (), {"__module__": HERE})

    with pytest.raises(PayloadError, match="another object"):
        encode(impostor, {})


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "os:system",
        "builtins:eval",
        "subprocess:Popen",
        "tests.unit.test_references:Outside",
        "tests.unit.wire_appx:Plain",
        f"{HERE}",
        f"{HERE}:",
        f"{HERE}:Gone",
        f"{HERE}:Plain.__init__",
        f"{HERE}:Plain.__class__.__base__",
        f"{HERE}:uuid.UUID",
        f"{HERE}:uuid",
        f"{HERE}:models.Model",
        f"{HERE}:Enum",
        f"{HERE}:nameless",
        f"{HERE}.gone:Plain",
        "tests.unit.wire_app..models:Plain",
        "tests.unit.wire_app.\x00:Plain",
        "tests.unit.wire_app.\ud800:Plain",
    ],
)
def test_only_installed_apps_are_looked_up(name):
    """A message reaches no other classes and functions."""
    with pytest.raises(UnknownClass):
        resolve_class(name)


def test_a_module_of_an_app_is_imported_when_it_is_named(tmp_path, monkeypatch):
    """The worker may not have imported it yet."""
    monkeypatch.setattr(models.__spec__.loader, "name", models.__name__, raising=False)
    package = sys.modules["tests.unit.wire_app"]
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    (tmp_path / "late.py").write_text("class Late: ...\n")
    (tmp_path / "broken.py").write_text("raise SystemExit(1)\n")

    try:
        assert resolve_class("tests.unit.wire_app.late:Late").__name__ == "Late"
        with pytest.raises(UnknownClass, match="cannot be imported here: SystemExit"):
            resolve_class("tests.unit.wire_app.broken:Late")
    finally:
        sys.modules.pop("tests.unit.wire_app.late", None)


def test_a_removed_app_is_not_looked_up():
    """Only the presently installed apps count."""
    assert resolve_class(f"{HERE}:Plain") is models.Plain

    with modify_settings(INSTALLED_APPS={"remove": "tests.unit.wire_app"}), pytest.raises(UnknownClass):
        resolve_class(f"{HERE}:Plain")


def test_a_reference_is_read_with_the_type_of_its_field():
    """A reference finds its row, whatever wrote the key."""
    key = uuid.uuid4()

    assert Reference("wire_app.Tagged", key) == reference_from("wire_app.Tagged", str(key))
    assert Reference("wire_app.Line", (1, 2)) == reference_from("wire_app.Line", ("1", "2"))


class Sharded:
    """A router that answers by the instance, and writes what it does not see elsewhere."""

    def db_for_write(self, model: Any, instance: Any = None, **hints: Any) -> str:
        """Return the database of the instance."""
        return str(instance._state.db) if instance is not None else "shard1"


class Primary:
    """A router with a replica to read from."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        """Return the replica."""
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        """Return the primary."""
        return "default"


class ActiveTenant:
    """A router that answers by the thread's state, which a worker does not have."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        """Return the tenant's database."""
        return "tenant3"


@pytest.mark.parametrize(
    ("routers", "db", "using"),
    [
        ([], "default", None),
        ([], None, None),
        ([], "other", "other"),
        ([Primary()], "replica", None),
        ([Primary()], "default", None),
        ([Sharded()], "shard7", "shard7"),
        ([Sharded()], "default", "default"),
        ([ActiveTenant()], "tenant3", "tenant3"),
        ([ActiveTenant()], "default", "tenant3"),
    ],
)
def test_a_reference_names_the_database_that_is_written_to(routers, db, using):
    """The worker reads the database that the router names at the send; the default one is left out."""
    cohort = saved(Cohort, pk=1)
    cohort._state.db = db

    with override_settings(DATABASE_ROUTERS=routers):
        assert reference_to(cohort) == Reference("admissions.Cohort", 1, using)


def test_an_alias_is_a_new_version(monkeypatch):
    """An older worker would load the row of another database."""
    monkeypatch.setitem(connections.settings, "other", {})
    cohort = saved(Cohort, pk=1)
    cohort._state.db = "other"
    asked: list[Any] = []

    def fetch(references):
        asked.extend(references)
        return rows(references)

    text, version = codec.encode(None, {"x": cohort})
    decode(text, fetch)

    assert version == "2"
    assert asked == [Reference("admissions.Cohort", 1, "other")]


def test_a_missing_database_is_unknown():
    """Another worker may have it; this one must not use another."""
    with pytest.raises(UnknownClass, match=r"admissions\.Cohort in other: no such database here"):
        reference_from("admissions.Cohort", 1, "other")


def test_models_of_other_registries_are_foreign():
    """No worker has the historical models of migrations, or the recorder's."""
    historical = ModelState.from_model(Cohort)
    state = ProjectState()
    state.add_model(ModelState.from_model(Academy))
    state.add_model(historical)

    assert is_foreign(state.apps.get_model("admissions", "Cohort"))
    assert is_foreign(MigrationRecorder.Migration)
    assert not is_foreign(Cohort)
    assert not is_foreign(models.ThingProxy)


def test_a_reference_to_an_unknown_model_is_unknown():
    """A worker that is older than the model parks the message, and does not skip it."""
    with pytest.raises(UnknownClass, match=r"admissions\.Gone: no installed app has this model"):
        reference_from("admissions.Gone", 1)


def test_a_shown_name_is_escaped_and_short():
    """Names come from outside: they may have line breaks and any length."""
    text = str(Reference("a.B", "x\nERROR forged" + "y" * 1000))

    assert "\n" not in text
    assert len(text) < 200


def test_a_snapshot_takes_a_model_instance_only():
    """The error is raised where the mistake is made."""
    with pytest.raises(PayloadError, match="takes a model instance"):
        Snapshot({"a": 1})  # type: ignore[arg-type]
    wrapped: Any = SimpleLazyObject(lambda: Academy(pk=1))
    assert Snapshot(wrapped).instance == Academy(pk=1)


def test_the_wire_is_importable_before_the_apps_are_loaded():
    """Signals are declared in modules that Django imports while it loads the apps."""
    code = "import signalbus.wire.codec, signalbus.wire.signing, django.apps as d; assert not d.apps.ready"

    root = Path(references.__file__).parents[3]

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={}, cwd=root)


def test_a_model_is_found_while_its_app_is_installed():
    """Earlier look-ups and the case of its label do not matter."""
    for _ in range(2):
        assert references.model_named("wire_app.Thing") is references.model_named("wire_app.thing") is models.Thing

    with modify_settings(INSTALLED_APPS={"remove": "tests.unit.wire_app"}), pytest.raises(UnknownClass):
        references.model_named("wire_app.Thing")

    assert references.model_named("wire_app.Thing") is models.Thing
