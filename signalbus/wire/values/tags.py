"""Declare the tags of payloads: the mark of each type that JSON does not know, and the version that introduced it.

A message states the lowest version whose workers can read all of its tags; a worker of a lower version parks it
(decision 0021). Tags of a released version never change. A new tag gets a new version: one above the highest ``since``
here.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Reader = TypeVar("Reader", bound="Callable[..., object]")

FIRST: Final = 1


@unique
class Tag(Enum):
    """A tag: the only key of a dict that represents a value which JSON has no type for.

    Args:
        key: the key; it begins with a dollar.
        since: the oldest version of the message whose readers know the tag.
    """

    STR = "$str", 1
    BYTES = "$bytes", 1
    DECIMAL = "$decimal", 1
    UUID = "$uuid", 1
    TIMEDELTA = "$timedelta", 1
    DATE = "$date", 1
    DATETIME = "$datetime", 1
    TIME = "$time", 1
    TUPLE = "$tuple", 1
    SET = "$set", 1
    FROZENSET = "$frozenset", 1
    DICT = "$dict", 1
    DATA = "$data", 1
    ENUM = "$enum", 1
    MODEL = "$model", 1
    NAME = "$name", 1
    REF = "$ref", 1
    SNAPSHOT = "$snapshot", 1
    SNAPSHOT_AS_SENDER = "$snapshot", 2  # version 1 knows it in payloads only
    ROW = "$row", 2
    ANONYMOUS = "$anonymous", 3
    STORED = "$stored", 4  # in a snapshot only
    VALUE = "$value", 6  # a registered type's, or a library's

    def __init__(self, key: str, since: int) -> None:
        self.key: str = key
        self.since: int = since

    def plain_key(self) -> str:
        """Return the key, for a writer that does not say which version its text needs.

        Raises:
            ValueError: the tag is newer than the first version, and only `Encoder` writes it.
        """
        if self.since != FIRST:
            raise ValueError(f"{self.key} is of version {self.since}: write it in Encoder, which raises the version")
        return self.key


def by_key(readers: Mapping[Tag, Reader]) -> dict[str, Reader]:
    """Return the readers of tags, by the tags' keys."""
    return {tag.key: read for tag, read in readers.items()}
