"""What we use of the private parts of Django, Celery and kombu is still there, and means what we take it for."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from django.db import connection, connections, transaction

from signalbus.compat import django


@pytest.mark.django_db(transaction=True)
def test_django_calls_what_waits_for_a_commit_from_the_front():
    """An entry that is moved within the list that Django keeps is called in its new place."""
    called: list[int] = []
    with transaction.atomic():
        for number in range(3):
            transaction.on_commit(partial(called.append, number), robust=True)
        entries = django.callbacks_of(connection)
        assert [(savepoints, robust) for savepoints, _callback, robust in entries] == [(set(), True)] * 3
        entries.insert(0, entries.pop())

    assert called == [2, 0, 1]
    assert django.callbacks_of(connection) == []


@pytest.mark.django_db(transaction=True)
def test_django_keeps_with_a_callback_the_savepoints_that_are_open():
    """Those of blocks that have one; a rollback takes out what was registered in it."""
    with transaction.atomic(), transaction.atomic(savepoint=False):
        assert django.open_savepoints(connection) == set()
        with transaction.atomic():
            open_now = django.open_savepoints(connection)
            transaction.on_commit(lambda: None)
            ((savepoints, *_),) = django.callbacks_of(connection)
            assert savepoints >= open_now
            assert len(open_now) == 1
            transaction.set_rollback(True)
        assert django.callbacks_of(connection) == []


@pytest.mark.django_db
def test_django_marks_the_transactions_of_a_testcase():
    """Its own blocks can be told from those of the code under test."""
    assert django.in_testcase(connection)
    assert django.only_testcases(connection)
    with transaction.atomic():
        assert django.in_testcase(connection)
        assert not django.only_testcases(connection)


@pytest.mark.django_db(transaction=True)
def test_django_marks_no_other_transaction():
    """Neither outside of any, nor inside one of the code's own."""
    assert not django.in_testcase(connection)
    assert not django.only_testcases(connection)
    with transaction.atomic():
        assert not django.in_testcase(connection)
        assert not django.only_testcases(connection)


@pytest.mark.django_db(databases="__all__")
def test_the_opened_connections_are_those_that_django_knows():
    """Of this thread, in the order of the settings; one that nobody asked for is not opened by asking."""
    assert connection.alias in [each.alias for each in django.opened_connections()]
    assert django.opened_connections() == connections.all(initialized_only=True)
    found = []
    thread = threading.Thread(target=lambda: found.extend(django.opened_connections()))
    thread.start()
    thread.join()
    assert found == []
