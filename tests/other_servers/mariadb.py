"""A private MariaDB."""

from __future__ import annotations

import getpass
import subprocess
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pymysql

from tests.other_servers import programs
from tests.other_servers.daemon import Daemon

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# As config.settings does it in the workers; this process began with another database.
pymysql.install_as_MySQLdb()

DATABASE = "signalbus"
MADE = ("django_migrations", "django_content_type", "auth_permission")  # have rows that the migrations made
# What Debian's own configuration would say, which is not read here; no waiting for the disk; and a time zone that is
# not UTC, as the machines have by which a server sets its own.
OPTIONS = (
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",
    "--skip-networking",
    "--default-time-zone=+05:00",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-log-file-size=16M",
    "--innodb-buffer-pool-size=64M",
)


class MariaDB:
    """A private MariaDB on a unix socket, as a context manager, with one database.

    Emptied for each test: to make the tables again would take seconds, because each waits for the disk.
    """

    def __enter__(self) -> Self:
        install, server = programs.find("mariadb")
        self._daemon = Daemon("mariadb")
        self._socket = str(self._daemon.directory / "socket")
        data = f"--datadir={self._daemon.directory / 'data'}"
        # Named, because it refuses to run as root unless that is said.
        user = f"--user={getpass.getuser()}"
        made = subprocess.run(
            [install, "--no-defaults", data, user, "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        command = [server, "--no-defaults", data, user, f"--socket={self._socket}", *OPTIONS]
        self._daemon.start(command, lambda: "ready for connections" in self._daemon.log)
        # One for the whole run: to connect takes longer than to empty all tables.
        self._connection = pymysql.connect(unix_socket=self._socket, user="root", autocommit=True, ssl_disabled=True)
        self.execute(f"CREATE DATABASE {DATABASE}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()
        self._daemon.stop()

    @property
    def url(self) -> str:
        """The DATABASE_URL."""
        # Else PyMySQL reads this machine's certificates at each connection, which takes longer than most tests.
        return f"mysql://root@{quote(self._socket, safe='')}/{DATABASE}?ssl_disabled=true"

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements, and return the rows of the last one."""
        with self._connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def empty(self) -> None:
        """Remove all rows but those of the migrations, and end sessions that lock some."""
        others = "SELECT id FROM information_schema.processlist WHERE user = 'root' AND id <> connection_id()"
        for (connection,) in self.execute(others):
            try:
                self.execute(f"KILL {connection}")
            except Exception as error:  # not by its class: a run has met one that PyMySQL's own name did not catch
                if "Unknown thread id" not in str(error):
                    raise
        tables = [table for (table,) in self.execute(f"SHOW TABLES FROM {DATABASE}") if table not in MADE]
        deletions = [f"DELETE FROM {DATABASE}.`{table}`" for table in tables]
        self.execute("SET foreign_key_checks = 0", *deletions)
