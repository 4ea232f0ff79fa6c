"""Encode a sender and a payload as a text, and decode the text to equal values of the same types (decision 0001).

`sending/message_templates` encodes, and `receiving/invoking/row_loading` decodes. Values that JSON knows are written
as JSON; others as a dict with one key, the tag, which begins with a dollar: ``{"$str": ""}``. A user's own dict of
that shape is written as ``{"$dict": [[key, value]]}``, so that no payload can contain a tag by accident.

A new tag is a new version of the message: an older worker must park what it cannot read. The version is the oldest
that knows all tags of a text (see `signalbus.wire.values.tags`), so that a worker parks no more than it must
(decision 0021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from django.db import DatabaseError

from signalbus.exceptions import Garbage, MissingRow, PayloadError, TextError, TooLarge, UnknownClass
from signalbus.wire.json_reader import reader
from signalbus.wire.json_writer import write
from signalbus.wire.values.class_names import SENDERS, cut
from signalbus.wire.values.decoder import Decoder, Finder
from signalbus.wire.values.encoder import Encoder
from signalbus.wire.values.references import has_base_manager, lookup_key, model_named, plain_reference
from signalbus.wire.values.remedies import too_large
from signalbus.wire.values.scalars import TO_JSON
from signalbus.wire.values.structures import HostError
from signalbus.wire.values.tags import Tag

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from django.db.models import Model

    from signalbus.wire.values.references import Reference
    from signalbus.wire.values.registered_types import TypeAdapter

    Fetch = Callable[[Mapping[Reference, Collection[str]]], Mapping[Reference, Model]]
    Rows = list[tuple[str, object]]  # label and primary key of each

MAX_DEPTH: Final = 64
MAX_BYTES: Final = 256 * 1024
_AROUND_VALUE: Final = 16  # bytes by which a proof may be longer than a message: its key, and a sender of four letters

_IDENTITY: Final[frozenset[Any]] = frozenset({object.__eq__})
_REF: Final = Tag.REF.plain_key()
_REF_IN_TEXT: Final = f'"{Tag.REF.key}"'
_ROW_IN_TEXT: Final = f'"{Tag.ROW.key}"'


def encode(  # noqa: PLR0913 - the limits of a message, and what it names
    sender: object,
    payload: Mapping[str, object],
    *,
    snapshots: bool = False,
    max_depth: int = MAX_DEPTH,
    max_bytes: int = MAX_BYTES,
    rows: Rows | None = None,
) -> tuple[str, str]:
    """Write a sender and a payload as a text of ASCII characters.

    Args:
        sender: None, a class, a function, a model instance or a text.
        payload: the named values; a queryset among them is evaluated here.
        snapshots: let field values travel beside each reference, for receivers that want them once its row is gone.
        max_depth: how deep containers may be nested in a value.
        max_bytes: the limit of the text's size, in bytes.
        rows: a list to which label and key of each row in the payload are added.

    Returns:
        The text, and the oldest version of the message that can read it.

    Raises:
        PayloadError: a value cannot be encoded; the error names its place and the remedy.
        django.db.DatabaseError: evaluating a queryset failed.
    """
    encoder = Encoder(max_depth, max_bytes, snapshots)
    text = _written(encoder, sender, payload, max_bytes, rows)
    for adapter, value in encoder.unproved:
        prove(adapter, value, max_depth=max_depth, max_bytes=max_bytes)
    return text, str(encoder.version)


def _written(
    encoder: Encoder, sender: object, payload: Mapping[str, object], max_bytes: int, rows: Rows | None = None
) -> str:
    """Write a sender and a payload, and prove nothing."""
    try:
        written = encoder.sender(sender)
        encoder.rows = [] if rows is None else rows  # those of the payload alone
        text = write([written, encoder.payload(payload)])
    except RecursionError as error:
        reason = "nested too deep for what is left of Python's stack: flatten it, or break the cycle"
        raise PayloadError(reason) from error
    except (ValueError, RuntimeError) as error:
        # An int over a limit that sys.set_int_max_str_digits() has lowered; a dict that another thread changes.
        raise PayloadError(f"it could not be written: {error}") from error
    if len(text) > max_bytes:
        raise PayloadError(too_large(str(len(text)), max_bytes))
    return text


def prove(adapter: TypeAdapter, value: object, *, max_depth: int = MAX_DEPTH, max_bytes: int = MAX_BYTES) -> None:
    """Encode and decode a value of a registered type, once for each type; rows in it are compared by their keys.

    Args:
        adapter: the type.
        value: a value of it.
        max_depth: as `encode` takes it.
        max_bytes: as `encode` takes it.

    Raises:
        PayloadError: it does not arrive equal, or does not arrive.
        django.db.DatabaseError: a query of the host's functions failed.
    """
    if adapter.is_proved:
        return

    def written(value: object) -> str:
        encoder = Encoder(max_depth, max_bytes + _AROUND_VALUE, snapshots=False)
        return _written(encoder, None, {"value": value}, max_bytes + _AROUND_VALUE)

    try:
        text = written(value)
        arrived = decode(text, _unloaded, max_depth=max_depth)[1]["value"]
        if type(arrived) is not type(value) or not _arrived_equal(adapter, value, arrived, text, written):
            raise PayloadError(_failed_proof(adapter, cut(f"{value!r} arrives as {arrived!r}")))
    except (PayloadError, DatabaseError, MemoryError):
        raise
    except Exception as error:  # of the host's own functions
        raise PayloadError(_failed_proof(adapter, f"it raised {type(error).__name__}: {error}")) from error
    adapter.is_proved = True


def _failed_proof(adapter: TypeAdapter, problem: str) -> str:
    return (
        f'a value of the type "{adapter.name}" does not arrive as it left: {problem}. Correct encode and decode, '
        f"registered in {adapter.place}"
    )


def _arrived_equal(adapter: TypeAdapter, value: Any, arrived: Any, text: str, written: Callable[[object], str]) -> bool:
    """Return whether two values are equal; if ``==`` does not say it, whether the same travels of them."""
    try:
        if bool(arrived == value):
            return True
        has_equality = type(value).__eq__ not in _IDENTITY
    except Exception:  # noqa: BLE001 - whatever a value's own code raises; arrays have no single answer
        has_equality = False
    if has_equality and not adapter.by_fields:
        return False
    return written(arrived) == text


def _unloaded(references: Mapping[Reference, Collection[str]]) -> Mapping[Reference, Model]:
    """Return instances with the keys of rows, and without their fields."""
    found = {}
    for reference in references:
        model = model_named(reference.label)
        found[reference] = model(pk=lookup_key(model, reference.pk))
        found[reference]._state.adding = False  # noqa: SLF001 - documented
        found[reference]._state.db = reference.using  # noqa: SLF001 - documented
    return found


def write_sender(sender: object) -> str | None:
    """Write a sender that is the same in every message of it, for `write_with`.

    Args:
        sender: as `encode` takes it.

    Returns:
        Its JSON; None for a row, and for what cannot be sent: those are `encode`'s.
    """
    if not (sender is None or type(sender) is str or isinstance(sender, SENDERS)):
        return None
    try:
        return write(Encoder(MAX_DEPTH, MAX_BYTES, snapshots=False).sender(sender))
    except PayloadError:
        return None


def write_with(
    sender: str, payload: Mapping[str, object], max_bytes: int = MAX_BYTES, rows: Rows | None = None
) -> str | None:
    """Write a payload of plain values, and of rows that a worker finds by label and key: nearly all payloads are such.

    Args:
        sender: the JSON that `write_sender` returned.
        payload: the named values.
        max_bytes: how large the text may be.
        rows: as `encode` takes it.

    Returns:
        The text that `encode` would have returned, without snapshots, for half of the time. None: ask `encode`, which
        knows the rest, and says what cannot travel, and where.
    """
    if type(payload) is not dict:
        return None  # a QueryDict's items() are not what dict() makes of it
    values: dict[str, Any] = {}
    try:
        for key, value in payload.items():
            if type(key) is not str or not key.isascii():
                return None
            scalar = TO_JSON.get(type(value))
            if scalar is not None:
                values[key] = scalar(value)
                continue
            row = plain_reference(value)
            if row is None:
                return None
            values[key] = {_REF: row}
            if rows is not None:
                rows.append((row[0], row[1]))
        if len(values) == 1 and next(iter(values))[:1] == "$":
            return None  # could be taken for a tag
        text = f"[{sender},{write(values)}]"
    except Exception:  # noqa: BLE001 - whatever a value's own code raises: encode() tells of it with its place
        return None
    return text if len(text) <= max_bytes else None


def decode(
    text: str,
    fetch: Fetch,
    *,
    related: Mapping[str, Collection[str]] | None = None,
    snapshots: bool = False,
    max_depth: int = MAX_DEPTH,
) -> tuple[object, dict[str, Any]]:
    """Read what :func:`encode` wrote.

    Args:
        text: the payload of a verified message.
        fetch: finds the rows; called once with all references and the relations that each is to bring, or not at all
            without any. What it raises is let pass.
        related: for payload keys the relations that their rows are to bring.
        snapshots: let field values that travel beside a reference stand in for a row that is gone.
        max_depth: how deep containers may be nested in a value.

    Returns:
        The sender and the payload.

    Raises:
        MissingRow: a row does not exist any more, and nothing may stand in for it.
        UnknownClass: a model, database, class, function, enum member or time zone is not here (yet).
        Garbage: not a text of this codec.
        TooLarge: nested too deep.
        Exception: any error of a model's own code while an instance is made of a snapshot, and of ``decode`` of a type
            that the host has registered.
    """
    sender, payload, wanted = _guarded(_parse, text, related, snapshots)
    rows = fetch(wanted) if wanted else {}
    return _guarded(_build, Decoder(rows, max_depth), sender, payload)  # type: ignore[no-any-return]


def _guarded(read: Callable[..., Any], *args: Any) -> Any:
    """Call a function that reads a payload; raise only our own errors and those of the database and the machine."""
    try:
        return read(*args)
    except (TextError, UnknownClass, MissingRow, DatabaseError, MemoryError):
        raise
    except HostError as error:
        raise error.error from None  # the receiver's attempt fails with it, as for a row from the database
    except RecursionError as error:
        raise TooLarge("nested too deep for Python's stack") from error
    except Exception as error:
        raise Garbage(f"the payload cannot be read: {type(error).__name__}") from error


def _parse(
    text: str, related: Mapping[str, Collection[str]] | None, snapshots: bool
) -> tuple[Any, Any, Mapping[Reference, Collection[str]] | None]:
    sender, payload = tree = _read(text)
    if type(tree) is not list:
        raise Garbage("not a sender and a payload")
    if _REF_IN_TEXT not in text and _ROW_IN_TEXT not in text:
        return sender, payload, None
    finder = Finder(snapshots)
    if related and type(payload) is dict:
        for key in related.keys() & payload.keys():
            finder.walk([payload[key]], related[key])
    finder.walk(tree)
    return sender, payload, finder.found


def _build(decoder: Decoder, sender: Any, payload: Any) -> tuple[object, dict[str, Any]]:
    built = decoder.sender(sender), decoder.payload(payload)
    if decoder.missing:
        hidden = sorted({row.label for row in decoder.missing if has_base_manager(row.label)})
        raise MissingRow(tuple(sorted(map(str, decoder.missing))), tuple(hidden))
    return built


def _no_constant(name: str) -> NoReturn:
    raise Garbage(f"{name} is no JSON")


_read = reader("[", parse_constant=_no_constant)
