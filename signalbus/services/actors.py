"""Say who asks for a change, and check whether they may."""

from __future__ import annotations

import getpass
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from django.core.exceptions import PermissionDenied
from django.utils.module_loading import import_string

from signalbus import conf
from signalbus.core.printable_text import printable
from signalbus.exceptions import ConfigurationError

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
    """Return the actor for a user of Django's, who has that user's permissions, or those that ``ACCESS`` gives.

    Args:
        user: the user of a request; an anonymous one may do nothing.
        through: how the change was asked for.
    """

    name = user.get_username() if user.is_authenticated else "somebody who is not logged in"
    return Actor(name, through, "" if user.pk is None else str(user.pk), partial(may, user))


def may(user: Any, permission: str) -> bool:
    """Return whether a user has a permission: as Django says, or as the function of ``SIGNALBUS["ACCESS"]`` does.

    Args:
        user: the user of a request; one that is anonymous or not active has none.
        permission: "signalbus.view_delivery" for example.
    """
    access = conf.get().ACCESS
    decide = user.has_perm if access is None else partial(_function(access), user)
    return bool(user.is_authenticated and user.is_active and decide(permission))


def _function(access: Any) -> Callable[[Any, str], Any]:
    """Return the function of the setting ``ACCESS``.

    Raises:
        ConfigurationError: its path leads to none.
    """
    try:
        found = import_string(access) if isinstance(access, str) else access
    except ImportError as error:
        raise ConfigurationError(f'SIGNALBUS["ACCESS"] is {access!r}, which cannot be imported: {error}') from error
    if not callable(found):
        raise ConfigurationError(f'SIGNALBUS["ACCESS"] is {access!r}, which is no function.')
    return cast("Callable[[Any, str], Any]", found)


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
