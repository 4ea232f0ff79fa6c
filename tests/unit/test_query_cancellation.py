"""Which connections to MariaDB and MySQL count as lost in the middle of a query."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest

from signalbus.receiving.process.query_cancellation import cancel_query

SESSION = 12


def wrapper(driver: Any, **attributes: Any) -> tuple[MagicMock, Any]:
    """Return Django's connection to MariaDB around a driver's, and the cursor of the next one that it opens."""
    driver.thread_id.return_value = SESSION
    connection = MagicMock(vendor="mysql", connection=driver, **attributes)
    cursor = connection.get_new_connection.return_value.cursor.return_value
    cursor.execute.side_effect = [1, 1, 0]  # found, killed, gone
    return connection, cursor


@pytest.mark.parametrize(
    ("is_open", "errors", "usable", "lost"),
    [
        (False, False, True, True),  # PyMySQL, interrupted
        (1, True, False, True),  # mysqlclient, after its read_timeout
        (1, True, True, False),  # a statement that failed
        (1, False, False, False),
    ],
)
def test_the_session_of_a_broken_connection_is_terminated(is_open, errors, usable, lost):
    """A sound connection keeps its session; nothing is asked of a server after an error that was no database's."""
    connection, cursor = wrapper(MagicMock(open=is_open), errors_occurred=errors)
    connection.is_usable.return_value = usable

    cancel_query(connection)

    killed = [call.args for call in cursor.execute.call_args_list if call.args[0].startswith("KILL")]
    assert killed == ([("KILL %s", (SESSION,))] if lost else [])
    assert connection.is_usable.called is (errors and bool(is_open))


def test_a_session_of_another_connection_is_not_terminated():
    """Behind a proxy, or after a restart, the number may be that of another user's session."""
    connection, cursor = wrapper(MagicMock(open=False))
    cursor.execute.side_effect = [0, 0]

    cancel_query(connection)

    assert not any(call.args[0].startswith("KILL") for call in cursor.execute.call_args_list)
