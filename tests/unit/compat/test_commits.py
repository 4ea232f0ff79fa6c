"""The private parts of Django's transactions that the library uses are unchanged."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connection, connections, transaction

from signalbus.compat import django_internals
from tasks.admissions.models import Academy


@pytest.mark.django_db(transaction=True)
def test_django_calls_commit_callbacks_from_the_front():
    """A callback that is moved within Django's list is called in its new place."""
    called: list[int] = []
    with transaction.atomic():
        for number in range(3):
            transaction.on_commit(partial(called.append, number), robust=True)
        entries = django_internals.callbacks_of(connection)
        assert [(savepoints, robust) for savepoints, _callback, robust in entries] == [(set(), True)] * 3
        entries.insert(0, entries.pop())

    assert called == [2, 0, 1]
    assert django_internals.callbacks_of(connection) == []


@pytest.mark.django_db(transaction=True)
def test_a_connection_keeps_the_orm_error_that_broke_a_transaction():
    """A rollback that was asked for keeps no error, and no later transaction clears the last one."""
    Academy.objects.all().delete()
    former = django_internals.rollback_error(connection)
    with transaction.atomic():
        transaction.set_rollback(True)
    assert django_internals.rollback_error(connection) is former

    with transaction.atomic(), suppress(IntegrityError):
        Academy.objects.create(name="A", slug="a")
        Academy.objects.create(name="A", slug="a")
    kept = django_internals.rollback_error(connection)
    assert isinstance(kept, IntegrityError)
    with transaction.atomic():
        assert django_internals.rollback_error(connection) is kept


@pytest.mark.django_db(transaction=True)
def test_a_commit_callback_has_the_open_savepoints():
    """A rollback of one of these savepoints removes the callback."""
    with transaction.atomic(), transaction.atomic(savepoint=False):
        assert django_internals.open_savepoints(connection) == set()
        with transaction.atomic():
            open_now = django_internals.open_savepoints(connection)
            transaction.on_commit(lambda: None)
            ((savepoints, *_),) = django_internals.callbacks_of(connection)
            assert savepoints >= open_now
            assert len(open_now) == 1
            transaction.set_rollback(True)
        assert django_internals.callbacks_of(connection) == []


@pytest.mark.django_db
def test_django_marks_the_transactions_of_a_testcase():
    """The transactions of a TestCase can be told from those of the code under test."""
    assert django_internals.in_testcase(connection)
    assert django_internals.only_testcases(connection)
    with transaction.atomic():
        assert django_internals.in_testcase(connection)
        assert not django_internals.only_testcases(connection)


@pytest.mark.django_db(transaction=True)
def test_django_marks_no_other_transaction():
    """No mark exists outside of a transaction, nor inside one of the code's own."""
    assert not django_internals.in_testcase(connection)
    assert not django_internals.only_testcases(connection)
    with transaction.atomic():
        assert not django_internals.in_testcase(connection)
        assert not django_internals.only_testcases(connection)


@pytest.mark.django_db(databases="__all__")
def test_the_open_connections_of_this_thread_are_listed():
    """They are in the order of the settings; listing them opens no connection."""
    assert connection.alias in [each.alias for each in django_internals.opened_connections()]
    assert django_internals.opened_connections() == connections.all(initialized_only=True)
    found = []
    thread = threading.Thread(target=lambda: found.extend(django_internals.opened_connections()))
    thread.start()
    thread.join()
    assert found == []


@pytest.mark.django_db(databases="__all__")
def test_a_connection_of_this_thread_is_found_by_its_alias():
    """It is the one that Django has; another thread, and a task under an event loop, get a connection of their own."""
    assert django_internals.connection_to(connection.alias) is connections[connection.alias]

    async def found_by_task() -> bool:
        return django_internals.connection_to(connection.alias) is connections[connection.alias]

    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(django_internals.connection_to, connection.alias).result()
        assert thread.submit(asyncio.run, found_by_task()).result()
    assert other is not connections[connection.alias]


@pytest.mark.django_db(databases="__all__")
def test_the_connections_of_a_task_are_listed_under_its_event_loop():
    """Under an event loop, each task has connections of its own."""

    async def lists_its_own() -> bool:
        before = django_internals.opened_connections()
        mine = connections[DEFAULT_DB_ALIAS]
        return before == [] and django_internals.opened_connections() == [mine]

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(asyncio.run, lists_its_own()).result()


@pytest.mark.django_db(transaction=True)
def test_the_innermost_block_has_the_last_savepoint():
    """A connection keeps the savepoint of each block; the outermost block has none."""
    assert django_internals.innermost_savepoint(connection) is None
    with transaction.atomic():
        assert django_internals.innermost_savepoint(connection) is None
        with transaction.atomic():
            savepoint = django_internals.innermost_savepoint(connection)
            Academy.objects.create(name="A", slug="innermost")
            assert savepoint
            connection.savepoint_rollback(savepoint)
        with transaction.atomic(savepoint=False):
            assert django_internals.innermost_savepoint(connection) is None
        assert not Academy.objects.filter(slug="innermost").exists()
