"""Statements that change a database session beyond their transaction are recognized."""

from __future__ import annotations

import pytest

from signalbus.receiving.process.session_state import changes_session


@pytest.mark.parametrize(
    "sql",
    [
        "SET app.tenant = 'a'",
        "set role other",
        "SET SESSION AUTHORIZATION other",
        "SET SESSION statement_timeout = 5",
        "SET search_path = %s",
        "SET TIME ZONE 'UTC'",
        "/* shop */ -- why\n SET ROLE other",
        "SELECT 1; SET ROLE other",
        "RESET ALL",
        "DISCARD PLANS",
        "LISTEN news",
        "PREPARE plan AS SELECT 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "CREATE TEMP TABLE t (a int)",
        "create local temporary table t (a int)",
        "CREATE TEMPORARY VIEW v AS SELECT 1",
        "DO $$ BEGIN PERFORM 1; END $$",
        "CALL procedure()",
        "SELECT set_config('app.tenant', %s, false)",
        "SELECT set_config('app.tenant', %s, %s)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_lock_shared(1)",
        "WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT * FROM x",
        "SELECT GET_LOCK('a', 1)",
        "SET @a = 1",
        "SELECT @a := 1",
        "SET SESSION sql_mode = ''",
        "SET NAMES latin1",
        "USE other",
        "LOCK TABLES t WRITE",
        "PRAGMA foreign_keys = OFF",
        "ATTACH DATABASE 'x' AS x",
        "SELECT * INTO TEMP TABLE t FROM shop_order",
        "CREATE TABLE pg_temp.t (a int)",
        "CREATE TABLE temp.t (a int)",
        "SELECT setseed(0.5)",
        "SELECT count(*) FROM shop_order INTO @a",
        "/* a; b */ SET ROLE other",
        "SET/**/ROLE other",
        "# why\nSET @a = 1",
        "/*! SET sql_mode = '' */",
        "SELECT '--'; SET ROLE other",
        'SAVEPOINT "s1"; SET ROLE other',
        "INSERT INTO t VALUES " + "(1)," * 1000 + "(2); SET ROLE other",
    ],
)
def test_a_change_of_the_session_is_noticed(sql):
    """This holds on PostgreSQL, MariaDB and SQLite, also behind comments and other statements."""
    assert changes_session(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        'UPDATE "shop_order" SET "name" = %s WHERE "id" = 1',
        "INSERT INTO settings (name) VALUES ('set role')",
        "SET LOCAL app.tenant = 'a'",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET CONSTRAINTS ALL IMMEDIATE",
        "SELECT set_config('app.tenant', %s, true)",
        "SELECT pg_advisory_xact_lock(1)",
        "SELECT pg_try_advisory_xact_lock(1)",
        'SAVEPOINT "s1"',
        'RELEASE SAVEPOINT "s1"',
        'ROLLBACK TO SAVEPOINT "s1"',
        "CREATE TABLE temperature (a int)",
        "DECLARE c NO SCROLL CURSOR FOR SELECT 1",
        "PREPARE TRANSACTION 'a'",
        "SELECT settings, reset FROM listen",
        "DELETE FROM dossiers",
        "INSERT INTO t VALUES " + "(1)," * 1000 + "(2)",
        "SELECT 1 -- SET ROLE",
        "SELECT * FROM shop_asset_config WHERE name = 'a'",
        "SELECT widget_lock, budget_lock FROM shop_widget",
        "UPDATE shop_page SET offset_limit = 5, silo_open = 1",
        "SELECT advisory_locks FROM shop_notice",
        'SELECT temp."id" FROM shop_reading temp WHERE temp.id = 1',
    ],
)
def test_a_change_of_the_transaction_is_accepted(sql):
    """No connection is closed for it."""
    assert not changes_session(sql)
