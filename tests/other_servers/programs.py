"""Finds the programs of the servers."""

from __future__ import annotations

import os
import shutil

# For each server: the Debian package, and its programs. Valkey, also as a sentinel, comes from PyPI.
NEEDED = {
    "mariadb": ("mariadb-server", ("mariadb-install-db", "mariadbd")),
    "rabbitmq": ("rabbitmq-server", ("rabbitmq-server", "rabbitmqctl", "epmd")),
    "sentinel": ("", ()),
    "models": ("spin gcc", ("spin", "gcc")),
    "pgbouncer": ("pgbouncer", ("pgbouncer",)),
    "namespaces": ("iproute2", ("ip", "setpriv")),
}
# Debian keeps servers where only root's PATH leads, and RabbitMQ's own script behind one that insists on its user.
PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")


class MissingProgramError(RuntimeError):
    """A server is not installed on this machine."""


def find(server: str) -> list[str]:
    """Find a server's programs.

    Args:
        server: its name in `NEEDED`.

    Returns:
        Their paths, in the order of `NEEDED`.

    Raises:
        MissingProgramError: one is not there; it says how to get it.
    """
    package, names = NEEDED[server]
    path = os.pathsep.join([*PLACES, os.environ.get("PATH", os.defpath)])
    found = {name: shutil.which(name, path=path) for name in names}
    missing = [name for name, where in found.items() if where is None]
    if missing:
        raise MissingProgramError(
            f"These tests need {' and '.join(missing)}, which this machine does not have. Install the Debian package "
            f"{package} (as root: apt-get install --no-install-recommends {package}), and run them again."
        )
    return [where for where in found.values() if where is not None]
