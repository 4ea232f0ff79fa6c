"""huey on PostgreSQL."""

from __future__ import annotations

import os

import dj_database_url
from huey.contrib.sql_huey import SqlHuey
from peewee import PostgresqlDatabase

from benchmarks.tally import tally

_url = dj_database_url.parse(os.environ["DATABASE_URL"])
_database = PostgresqlDatabase(_url["NAME"], user=_url["USER"], host=_url["HOST"] or _url["OPTIONS"]["host"])
huey = SqlHuey("bench", database=_database)
transaction = _database.atomic


@huey.task()
def nothing(number: int) -> None:
    """Do nothing."""
    tally()


def send(count: int) -> None:
    """Send so many."""
    for number in range(count):
        nothing(number)
