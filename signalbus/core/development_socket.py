"""Find the socket of a project's development broker: its path, a private folder for it, and whether a server listens.

``manage.py signalbus dev`` starts the broker there; the settings of the other processes lead there while ``DEBUG`` is
True and no broker is configured. The name follows from the folder of the project, so each checkout has its own. The
folder is made and checked here. `celery.py`, `checks` and `management/dev/supervisor` call it.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import sys
from pathlib import Path

from signalbus.exceptions import ConfigurationError

# Not the folder for temporary files that the environment names: a terminal and an editor may have different ones.
SHARED = Path("/tmp")  # noqa: S108 - a folder in it that only this user can enter


def project_of(settings_module: str) -> Path | None:
    """Return the folder that holds the top package of the settings, as a rule that of ``manage.py``.

    Args:
        settings_module: its dotted name.

    Returns:
        The folder, without symbolic links; None if the settings are in no file.
    """
    top = sys.modules.get(settings_module.partition(".")[0])
    file = getattr(top, "__file__", None)
    if file is not None:
        path = Path(file).resolve()
        return path.parent.parent if hasattr(top, "__path__") else path.parent
    folders = list(getattr(top, "__path__", ()))  # of a package without __init__.py
    return Path(folders[0]).resolve().parent if folders else None


def socket_of(project: Path) -> Path:
    """Return the path of a project's socket, in a folder that only this user can enter; the folder is made.

    Args:
        project: the project's folder.

    Raises:
        ConfigurationError: the folder belongs to another user, who could read what is sent.
    """
    folder = SHARED / f"signalbus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made ({error}): name a broker in CELERY_BROKER_URL.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigurationError(
            f"{folder} must be a folder that only this user can enter, for the broker of `manage.py signalbus dev`: "
            "remove it, or name a broker in CELERY_BROKER_URL."
        )
    return folder / f"{hashlib.sha256(os.fsencode(project)).hexdigest()[:16]}.sock"


def accepts_connections(path: Path) -> bool:
    """Return whether a server listens on a unix socket.

    Args:
        path: of the socket.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True
