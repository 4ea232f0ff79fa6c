"""Say who asks for a change, and check whether they may."""

from __future__ import annotations

import getpass
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from django.core.exceptions import PermissionDenied

from signalbus.core.printable_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

audit_logger: Final[logging.Logger] = logging.getLogger("signalbus.audit")

Through = Literal["web", "admin", "command", "code"]
VIEW: Final = "signalbus.view_delivery"  # to see deliveries, without their payloads
VIEW_PAYLOAD: Final = "signalbus.view_payload"  # to see payloads, with secrets hidden; to reveal these, with a reason
OPERATE: Final = "signalbus.operate_delivery"  # to retry, discard, pause and resume


@dataclass(frozen=True, slots=True)
class Actor:
    """A person, or a program, that asks for a change.

    Args:
        name: as the audit log shows it.
        through: how the change was asked for.
        id: the user's id; empty for who is no user of Django's.
        allows: returns whether the actor has a permission; None for who may do everything.
    """

    name: str
    through: Through
    id: str = ""
    allows: Callable[[str], bool] | None = None

    def require(self, permission: str) -> None:
        """Check a permission.

        Args:
            permission: as Django names it, "signalbus.operate_delivery" for example.

        Raises:
            PermissionDenied: the actor lacks it; the audit logger says so.
        """
        if self.allows is None or self.allows(permission):
            return
        name = printable(self.name)
        audit_logger.warning("signalbus: %s (%s) lacks the permission %s", name, self.through, permission)
        raise PermissionDenied(f"{self.name} lacks the permission {permission}.")


def user_actor(user: Any, through: Through = "web") -> Actor:
    """Return the actor for a user of Django's, who has that user's permissions.

    Args:
        user: the user of a request; an anonymous one may do nothing.
        through: how the change was asked for.
    """

    def allows(permission: str) -> bool:
        return bool(user.is_authenticated and user.is_active and user.has_perm(permission))

    name = user.get_username() if user.is_authenticated else "somebody who is not logged in"
    return Actor(name, through, "" if user.pk is None else str(user.pk), allows)


def command_actor() -> Actor:
    """Return the actor for a command: the user of the operating system, who may do everything."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user without a name
        name = ""
    return Actor(name, "command")


def code_actor(name: str = "") -> Actor:
    """Return the actor for a project's own code, which may do everything.

    Args:
        name: what the audit log shows, as the name of a job.
    """
    return Actor(name, "code")
