"""The result of a send: the responses of the receivers that ran here, and the message's id.

`signal` and `send_operation` make one for each send; `signalbus.Sent` is its public name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.apps import apps

from signalbus.core.fast_instances import uuid_from
from signalbus.exceptions import ConfigurationError
from signalbus.registration.registry import registry

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from signalbus.sending.outgoing import Route


class Sent(list[tuple[Any, Any]]):
    """The result of a send: (receiver, response) for each receiver that ran in this process; normally none."""

    _id: UUID | str | None = None  # no constructor of its own: that would be half the cost of a send without receivers
    _routes: Sequence[Route] = ()
    _recorded: bool = False

    def with_message(self, id_: UUID | str | None, routes: Sequence[Route], *, recorded: bool) -> Sent:
        """Remember the message that was sent, and return this.

        Args:
            id_: the message's id, or its hex.
            routes: its routes; none if no receiver runs in a worker.
            recorded: the ledger has a row of each delivery.
        """
        self._id, self._routes, self._recorded = id_, routes, recorded
        return self

    @property
    def id(self) -> UUID | None:
        """The message's id, or None if no receiver runs in a worker."""
        if type(self._id) is str:  # made on demand: few callers ask, and it takes as long as to sign a message
            self._id = uuid_from(self._id)
        return self._id  # type: ignore[return-value]  # a text no more

    def __repr__(self) -> str:
        """Describe the message, its recipients and the responses, for people in a shell."""
        said = []
        if self._routes:
            recipients = [recipient for route in self._routes for recipient in route.recipients or ("whoever listens",)]
            said.append(f"{self._routes[0].signal} {self.id} to {', '.join(recipients)}")
            said.append("recorded" if self._recorded else "not recorded unless something goes wrong")
        elif not self:
            said.append("nothing travels: no receiver in a worker listens to this sender")
        if self:
            said.append(f"responses {super().__repr__()}")
        return f"<Sent {'; '.join(said)}>"


def unheard() -> Sent:
    """Return the result of a send without receivers; raise if the app is not installed, and so found no receivers."""
    if not registry.complete and apps.ready:
        raise ConfigurationError(
            'Add "signalbus" to INSTALLED_APPS: without it, nobody looks for the receivers of your apps, and whatever '
            "you send reaches nobody."
        )
    return Sent()
