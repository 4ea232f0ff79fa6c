"""Integration tests have real servers, and this process's bus between them."""

from tests.fixtures import (
    broker_url,
    database,
    database_url,
    migrated_postgres,
    migrated_sqlite,
    postgres,
    postgres_server,
    start_worker,
    valkey,
)

__all__ = [
    "broker_url",
    "database",
    "database_url",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres",
    "postgres_server",
    "start_worker",
    "valkey",
]
