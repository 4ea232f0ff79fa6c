"""Encode and decode numpy's scalars and small arrays: the bytes of numbers, dates and texts; no objects, no pickle."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np

from signalbus.exceptions import PayloadError
from signalbus.wire.values.registered_types import TypeAdapter, list_of

MAX_BYTES: Final = 64 * 1024  # of an array
# A byte order, a kind and a size, as "<f8" and "<M8[ns]", of the kinds whose bytes are the value; or a long long.
_DTYPE: Final = re.compile(r"[<>|][biufcMmSU][0-9]{1,5}(\[[0-9]{0,9}[a-zA-Z]{1,2}\])?|[<>][qQ]")
_TEXTS: Final = (np.str_, np.bytes_)


def adapter_for(kind: type) -> TypeAdapter | None:
    """Return the adapter for a type; None for a subclass of the host's, and for records and objects."""
    if kind is np.ndarray:
        return _ARRAY
    if kind in _TEXTS:
        return _TEXT
    is_scalar = issubclass(kind, np.generic) and kind.__module__ == "numpy" and not issubclass(kind, np.flexible)
    return _SCALAR if is_scalar and kind is not np.object_ else None


def _written(dtype: np.dtype[Any]) -> str:
    if _DTYPE.fullmatch(dtype.str) is None or not dtype.itemsize:
        raise PayloadError(f"the dtype {dtype} cannot travel: send value.tolist(), or an array of numbers or dates")
    if dtype.kind in "fc" and dtype.itemsize > np.dtype(np.complex128 if dtype.kind == "c" else np.float64).itemsize:
        raise PayloadError(f"the dtype {dtype} is another one on other machines: send value.astype(float)")
    return dtype.str if np.dtype(dtype.str).type is dtype.type else f"{dtype.str[0]}{dtype.char}"


def _dtype(text: Any) -> np.dtype[Any]:
    if type(text) is not str or _DTYPE.fullmatch(text) is None:
        raise ValueError(text)
    return np.dtype(text)


def _parts_of_scalar(value: Any) -> list[Any]:
    return [_written(value.dtype), value.tobytes()]


def _scalar(parts: Any) -> Any:
    dtype, data = parts
    (value,) = np.frombuffer(_bytes(data), _dtype(dtype))
    return value


def _parts_of_text(value: Any) -> str | bytes:
    return str.__str__(value) if isinstance(value, str) else bytes(value)


def _text(value: Any) -> Any:
    return np.bytes_(value) if type(value) is bytes else np.str_(value)


def _parts_of_array(value: Any) -> list[Any]:
    dtype = _written(value.dtype)
    if value.nbytes > MAX_BYTES:
        raise PayloadError(f"an array of {value.nbytes} bytes, {MAX_BYTES} are allowed: save it and send its name")
    return [dtype, list(value.shape), value.tobytes()]


def _array(parts: Any) -> Any:
    dtype, shape, data = parts
    return np.frombuffer(_bytes(data), _dtype(dtype)).reshape(list_of(shape)).copy()  # a copy can be written to


def _bytes(data: Any) -> bytes:
    if type(data) is not bytes:
        raise TypeError(type(data).__name__)
    return data


_SCALAR: Final = TypeAdapter(name="numpy:scalar", encode=_parts_of_scalar, decode=_scalar)
_TEXT: Final = TypeAdapter(name="numpy:text", encode=_parts_of_text, decode=_text)
_ARRAY: Final = TypeAdapter(name="numpy:array", encode=_parts_of_array, decode=_array)
BY_NAME: Final[dict[str, TypeAdapter]] = {adapter.name: adapter for adapter in (_SCALAR, _TEXT, _ARRAY)}
