"""Write the headers of messages, and recognize those that differ only in id and time from one that was read.

`message` and `sending/message_templates` use it. A header is a JSON object: first what all messages of a sender share
but for id and time, the heading, then what only this message has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from signalbus.exceptions import PayloadError
from signalbus.wire.json_writer import quoted, write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    Shared = tuple[str, str | None, tuple[str, ...] | None, str, bool, bool, int]  # as `Heading` takes them

# The size of a header beside the payload. The signer adds it to the payload's limit, so that nothing that could be
# sent is too large for the worker.
HEADER_BYTES: Final = 64 * 1024

HEADING_KEYS: Final = frozenset("istfrldcv")  # of a header without anything of its own but id and time


class Heading:
    """The part of a body that messages share which differ only in ids, times and payloads; it is written once.

    Args:
        signal: as `Message` has it.
        sender: as above.
        recipients: as above.
        ledger: as above.
        durable: as above.
        recorded: as above.
        payload_version: as above.
    """

    __slots__ = ("_named", "_rest")

    def __init__(  # noqa: PLR0913 - what a message has
        self,
        *,
        signal: str,
        sender: str | None,
        recipients: tuple[str, ...] | None,
        ledger: str,
        durable: bool,
        recorded: bool,
        payload_version: int = 1,
    ) -> None:
        self._named = f'","s":{quoted(signal)},"t":'
        # What is assumed without them is left out.
        self._rest = _items(
            f=sender,
            r=recipients,
            l=None if ledger == "default" else ledger,
            d=None if durable else False,
            c=recorded or None,
            v=None if payload_version == 1 else payload_version,
        )

    def body(self, id_: str, sent_at: int, payload: str, version: str, more: str = "") -> str:
        """Write a body: version, header and payload, a line each; ASCII only.

        Args:
            id_: the message's id, in hex.
            sent_at: when it was sent, in microseconds since 1970.
            payload: sender and payload as the codec wrote them.
            version: as the codec says.
            more: the items that `lineage` wrote.

        Raises:
            PayloadError: the header alone is over 64 KiB (far too many recipients, or a sender's name without end).
        """
        header = f'{{"i":"{id_}{self._named}{sent_at}{self._rest}{more}}}'
        if len(header) > HEADER_BYTES:
            raise PayloadError(
                f"the header takes {len(header)} bytes, {HEADER_BYTES} are allowed: connect fewer receivers, "
                "or shorten the sender's name, the ordering key, the trace context or what SIGNALBUS['CARRY'] captures"
            )
        return f"{version}\n{header}\n{payload}"


def lineage(
    path: tuple[str, ...] = (),
    root: UUID | None = None,
    parent: UUID | None = None,
    ordering_key: str | None = None,
    trace: Mapping[str, str] | None = None,
) -> str:
    """Write the part of a header that follows the shared one: path, root, parent, ordering key and trace.

    Args:
        path: as `Message` has it.
        root: as above; None for a root.
        parent: as above.
        ordering_key: as above.
        trace: as above.
    """
    return _items(
        p=path or None, o=root and root.hex, u=parent and parent.hex, k=ordering_key, x=dict(trace or ()) or None
    )


def surroundings(context: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """Write the context of a message into its header, and its origin, which older workers ignore.

    Args:
        context: as `Message` has it; below `CONTEXT_VERSION`, a worker may not restore it.
        origin: as above.
    """
    return _items(e=dict(context) or None, w=dict(origin) or None)


def _items(**items: Any) -> str:
    return "".join([f',"{name}":{write(value)}' for name, value in items.items() if value is not None])


def split(header: str) -> tuple[str, str, str]:
    """Return a header's id, its time, and its heading, the rest, if it is as `Heading` writes it.

    Args:
        header: the header; of one that is written otherwise, or ends with its time, the parts are any pieces of it.
    """
    before, _, after = header.partition('","t":')
    moment, _, rest = after.partition(",")
    return before[6:38], moment, f"{before[:6]}{before[38:]},{rest}"


class KnownHeadings(dict[str, "Shared"]):
    """What the headings that were read in this process say, by their texts."""

    MOST = 500  # that are remembered, each of
    MOST_CHARS = 2000

    def add(self, heading: str, shared: Shared) -> None:
        """Remember what a heading says, unless it is long.

        Args:
            heading: the text.
            shared: what it says.
        """
        if len(heading) <= self.MOST_CHARS:
            if len(self) >= self.MOST:
                self.clear()
            self[heading] = shared
