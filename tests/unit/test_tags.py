"""The tags of payloads: none travels under a version whose workers do not know it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from signalbus import wire
from signalbus.exceptions import UnknownVersion
from signalbus.sending import message_templates
from signalbus.sending.outgoing import SharedFields
from signalbus.wire import codec
from signalbus.wire.message import _VERSIONS, from_body
from signalbus.wire.values import decoder, encoder, scalars
from signalbus.wire.values.references import Snapshot
from signalbus.wire.values.tags import Tag
from tasks.admissions.models import Cohort

from .wire_values import saved

# What workers out there know. A line may be added, under a version of its own; none may be changed.
FROZEN = {
    1: {
        *("$str", "$bytes", "$decimal", "$uuid", "$timedelta", "$date", "$datetime", "$time"),
        *("$tuple", "$set", "$frozenset", "$dict", "$data", "$enum", "$model", "$name", "$ref", "$snapshot"),
    },
    2: {"$row", "$snapshot as a sender"},
    3: {"$anonymous"},
    4: {"$stored"},
    6: {"$value"},
}
NEWER = [tag for tag in Tag if tag.since > 1]


def elsewhere(instance: Any) -> Any:
    """Move an instance to another database."""
    instance._state.db = "other"
    return instance


def test_the_tags_of_each_version_are_frozen():
    """A tag that workers know keeps its version; a new one has a version of its own."""
    found: dict[int, set[str]] = {}
    for tag in Tag:
        name = "$snapshot as a sender" if tag is Tag.SNAPSHOT_AS_SENDER else tag.key
        found.setdefault(tag.since, set()).add(name)

    assert found == FROZEN


def test_each_version_of_a_tag_is_read():
    """A worker reads messages of every version that it has tags of, and parks the next one."""
    for version in FROZEN:
        with pytest.raises(Exception, match="no header"):
            from_body(f"{version}\n")
    with pytest.raises(UnknownVersion):
        from_body(f"{max(map(int, _VERSIONS)) + 1}\n")


def test_each_tag_has_a_reader():
    """What the encoder can write, the decoder can read; a class or a function is read as a sender only."""
    read = scalars.FROM_JSON.keys() | decoder._READERS.keys() | {Tag.NAME.key}

    assert read == {tag.key for tag in Tag}


@pytest.mark.parametrize("tag", NEWER)
def test_writers_without_a_version_refuse_a_newer_tag(tag: Tag):
    """The table of scalars and the short form of a send report no version: a newer tag fails at import."""
    with pytest.raises(ValueError, match=f"is of version {tag.since}: write it in Encoder"):
        scalars._tagged(tag, str)
    with pytest.raises(ValueError, match="which raises the version"):
        tag.plain_key()


def test_no_tag_is_written_by_hand():
    """A tag is in the table of tags only: a literal elsewhere would travel without the version of its tag."""
    for path in Path(wire.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
        texts = [node for node in nodes if isinstance(node, ast.Constant) and node not in docstrings]
        found = [node.value for node in texts if isinstance(node.value, str) and re.search(r"\$\w", node.value)]

        assert path.name == "tags.py" or not found, f"{path}: {found}"


@pytest.mark.parametrize(
    ("sender", "payload", "version"),
    [
        (None, {"a": 1, "b": (1, {2}), "row": saved(Cohort, pk=1)}, "1"),
        (Cohort, {"a": Snapshot(Cohort(pk=1))}, "1"),
        (None, {"a": Cohort(pk=1)}, "1"),
        (Cohort(pk=1), {}, "2"),
        (saved(Cohort, pk=1), {}, "1"),
        (elsewhere(saved(Cohort, pk=1)), {}, "2"),
        (None, {"deep": [{"a": (elsewhere(saved(Cohort, pk=1)),)}]}, "2"),
        (None, {"user": AnonymousUser()}, "3"),
        (None, {"user": AnonymousUser(), "then": elsewhere(saved(Cohort, pk=1))}, "3"),
        (Cohort(pk=1), {"user": AnonymousUser()}, "3"),
        (None, {"deep": [{"a": (range(3),)}], "user": AnonymousUser()}, "6"),
    ],
)
def test_a_text_has_the_newest_version_of_its_tags(sender: object, payload: dict[str, Any], version: str):
    """The version is the oldest that knows all tags of the text, whatever their order and depth."""
    assert codec.encode(sender, payload)[1] == version


def test_a_new_tag_raises_the_version(monkeypatch: pytest.MonkeyPatch):
    """A tag of a version to come, written by the encoder, makes a message of that version; the short way refuses it."""

    class Coming:
        key, since = "$slice", 10

    by_name = encoder.Encoder._by_name

    def with_slice(self: Any, value: Any, left: int) -> Any:
        return self._tagged(Coming, [value.start, value.stop]) if type(value) is slice else by_name(self, value, left)

    monkeypatch.setattr(encoder.Encoder, "_by_name", with_slice)

    assert codec.encode(None, {"a": slice(1), "user": AnonymousUser()})[1] == "10"
    assert codec.write_with("null", {"a": slice(1)}) is None


@pytest.mark.parametrize(("context_version", "version"), [("2", "3"), ("3", "3"), ("10", "10")])
def test_a_context_never_lowers_the_version(monkeypatch: pytest.MonkeyPatch, context_version: str, version: str):
    """A message with a context has the newer version of the two: that of its tags, and that of the context."""
    monkeypatch.setattr(message_templates, "CONTEXT_VERSION", context_version)
    shared = SharedFields(
        signal="tests.tags",
        routes={None: ("receiver",)},
        ledger="default",
        durable=False,
        ordered_by=None,
    )
    ((part,),) = message_templates.MessageTemplate(shared, None).messages(
        None, [{"user": AnonymousUser()}], {"tenant": "acme"}
    )

    assert part.body.startswith(f"{version}\n")
