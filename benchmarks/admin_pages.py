"""Measures the admin's pages on a large ledger: ``python -m benchmarks.admin_pages sqlite|postgres DELIVERIES N``.

Of 200,000 deliveries (SQLite) or two million (PostgreSQL), two for each message, one in N is dead (1,000), one in a
thousand waits, and the others are done. Each page is asked for five times by Django's test client, as a user with all
permissions; the median and the best time are printed, with the number of statements, and the CPU time of a request in
this process and in the database's: about what it takes on a machine that does nothing else.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import django

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Page = tuple[str, str]


ROUNDS: Final = 5
GOALS: Final = {"postgresql": 0.3, "sqlite": 1.0}  # seconds
RECEIVERS: Final = ("crm.sync", "mail.send")
DELIVERIES: Final = "/admin/signalbus/delivery/"
MESSAGES: Final = "/admin/signalbus/storedmessage/"


def main(
    kind: str = "postgres", number: str = "", dead: str = "1000", *, wanted: Callable[[], Iterable[Page]] | None = None
) -> int:
    """Run the benchmark, and print its table.

    Args:
        kind: postgres or sqlite.
        number: of deliveries; empty for the default of the database.
        dead: one in so many is dead.
        wanted: returns the pages by name; None for the admin's.
    """
    os.environ |= {"DJANGO_SETTINGS_MODULE": "tests.settings", "ALLOWED_HOSTS": "testserver"}
    django.setup()
    from tests.servers import Postgres, default_database, migrate  # noqa: PLC0415 - needs Django's apps

    deliveries = int(number or (2_000_000 if kind == "postgres" else 200_000))
    with ExitStack() as stack:
        if kind == "postgres":
            url = stack.enter_context(Postgres()).create()
        else:
            url = f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/ledger.sqlite3"
        migrate(url)
        stack.enter_context(default_database(url))
        began = time.perf_counter()
        fill(deliveries // len(RECEIVERS), int(dead))
        print(f"{kind}, {deliveries:,} deliveries, one in {dead} dead, written in {time.perf_counter() - began:.0f} s")
        return measure(wanted or pages)


def fill(messages: int, dead: int) -> None:
    """Write messages with two deliveries each, the oldest an hour ago, in three statements."""
    from django.db import connection  # noqa: PLC0415 - needs Django's apps

    from signalbus.ledger.base.deliveries import row_of  # noqa: PLC0415 - as above

    sample = row_of(sample_message())
    words: dict[str, Any] = {"n": messages, "began": int((time.time() - 3600) * 1000)}
    if connection.vendor == "postgresql":
        words |= {"series": f"(SELECT generate_series(0, {messages - 1}) AS i) s", "now": "now()", "no": "false"}
        words |= {"hex": "lpad(to_hex({}::bigint), 12, '0')", "id": "({})::uuid"}
    else:
        counted = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {messages - 1})"
        words |= {"series": f"({counted} SELECT i FROM n) s", "no": "0", "hex": "printf('%012x', {})", "id": "({})"}
        words |= {"now": "strftime('%Y-%m-%d %H:%M:%f', 'now')"}
    with connection.cursor() as cursor:
        hexes = key_of(words, 0)
        text = str(sample.text).replace("'", "''")
        statement = f"""
            INSERT INTO signalbus_message (id, signal, text, sealed, subject, created_at)
            SELECT {words["id"].format(hexes)}, 'shop.signal_' || (i % 20),
                replace('{text}', '{sample.pk.hex}', {hexes}),
                {words["no"]}, 'shop.Order ' || (i / 3), {words["now"]} FROM {words["series"]}
        """
        cursor.execute(statement)
        for place, receiver in enumerate(RECEIVERS, 1):
            is_dead, waits = f"(i + {place}) % {dead} = 0", f"(i + {place}) % 1000 = 1"
            statement = f"""
                INSERT INTO signalbus_delivery (id, message_id, receiver, queue, state, attempts, allowance, due_at,
                    error, traceback, error_group, failed_at, ended_at, created_at)
                SELECT {words["id"].format(key_of(words, place))}, {words["id"].format(hexes)}, '{receiver}', '',
                    CASE WHEN {is_dead} THEN 'dead' WHEN {waits} THEN 'pending' ELSE 'done' END, 1, 0, {words["now"]},
                    CASE WHEN {is_dead} THEN 'KeyError: ' || i ELSE '' END,
                    CASE WHEN {is_dead} THEN '{"Traceback " * 100}' ELSE '' END,
                    CASE WHEN {is_dead} THEN 'g' || (i % 7) END, CASE WHEN {is_dead} THEN {words["now"]} END,
                    CASE WHEN {waits} THEN NULL ELSE {words["now"]} END, {words["now"]}
                FROM {words["series"]}
            """
            cursor.execute(statement)
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")


def key_of(words: Mapping[str, Any], place: int) -> str:
    """Return the SQL of an id in the order of time: of a message, or of one of its deliveries."""
    began, number = words["hex"].format(f"({words['began']} + i)"), words["hex"].format("i")
    return f"{began} || '7{place:03}8000' || {number}"


def sample_message() -> Any:
    """Return a message."""
    from signalbus.wire.codec import encode  # noqa: PLC0415 - needs Django's apps
    from signalbus.wire.message import Message, uuid7  # noqa: PLC0415 - as above

    id_ = uuid7()
    payload, version = encode(None, {"order": 42, "customer": {"email": "ana@example.com", "token": "x" * 200}})
    return Message(
        id=id_, signal="shop.order_paid", payload=payload, version=version, root=id_, sent_at=datetime.now(UTC)
    )


def measure(wanted: Callable[[], Iterable[Page]]) -> int:
    """Ask for the pages, and print what each takes."""
    from django.contrib.auth import get_user_model  # noqa: PLC0415 - needs Django's apps
    from django.db import connection  # noqa: PLC0415 - as above
    from django.test import Client  # noqa: PLC0415 - as above
    from django.test.utils import CaptureQueriesContext  # noqa: PLC0415 - as above

    client = Client()
    client.force_login(get_user_model().objects.create_superuser("admin"))
    worst = 0.0
    for name, url in wanted():
        client.get(url)
        times, used = [], cpu_seconds()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            answer = client.get(url)
            times.append(time.perf_counter() - began)
            assert answer.status_code == HTTPStatus.OK, (url, answer.status_code)
        used = (cpu_seconds() - used) / ROUNDS
        with CaptureQueriesContext(connection) as asked:
            client.get(url)
        slowest = max(asked.captured_queries, key=lambda query: float(query["time"]))
        median = statistics.median(times)
        worst = max(worst, median)
        taken = f"{median * 1000:6.0f} ms  best {min(times) * 1000:4.0f} ms  CPU {used * 1000:4.0f} ms"
        print(f"{name:45} {taken}  {len(asked):3} statements  slowest {slowest['time']} s")
    goal = GOALS[connection.vendor]
    print(f"{'held' if worst <= goal else 'MISSED'}: no page over {goal * 1000:.0f} ms")
    return 0 if worst <= goal else 1


def cpu_seconds() -> float:
    """Return the CPU time that this process, and the database's process for its connection, have used."""
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415 - only to measure; it ships no types
    from django.db import connection  # noqa: PLC0415 - needs Django's apps

    used = time.process_time()
    if connection.vendor == "postgresql":
        connection.ensure_connection()
        spent = psutil.Process(connection.connection.info.backend_pid).cpu_times()
        used += spent.user + spent.system
    return used


def pages() -> Iterator[Page]:
    """Yield the pages by name."""
    from signalbus.models import Delivery, Pause, StoredMessage  # noqa: PLC0415 - needs Django's apps
    from tasks.admissions.models import Academy  # noqa: PLC0415 - as above

    Pause.objects.create(kind="receiver", name="crm.sync", since=datetime.now(UTC))  # which every page shows
    academy = Academy.objects.create(name="A", slug="a")
    youngest = list(StoredMessage.objects.order_by("-id").values_list("id", flat=True)[:3])
    StoredMessage.objects.filter(id__in=youngest).update(subject=f"admissions.Academy {academy.pk}")
    dead = Delivery.objects.filter(state="dead").order_by("-id").values_list("id", "message_id")
    newest, oldest = dead[0], dead.reverse()[0]
    yield "deliveries", DELIVERIES
    yield "deliveries, in the middle", f"{DELIVERIES}?after={dead[len(dead) // 2][0]}"
    yield "deliveries that are dead", f"{DELIVERIES}?state=dead"
    yield "deliveries that wait", f"{DELIVERIES}?state=pending"
    yield "deliveries that are done", f"{DELIVERIES}?state=done"
    yield "deliveries about a row", f"{DELIVERIES}?q=subject:shop.order:4711"
    yield "deliveries of one cause", f"{DELIVERIES}?q=group:g3"
    yield "deliveries to a receiver", f"{DELIVERIES}?q=receiver:crm.*"
    yield "deliveries to a receiver that has none", f"{DELIVERIES}?q=receiver:nobody.*"
    yield "deliveries of a signal that are dead", f"{DELIVERIES}?q=signal:shop.signal_3&state=dead"
    yield "deliveries with an error that none has", f"{DELIVERIES}?q=error:*nothing*"
    yield "deliveries of the last hour", f"{DELIVERIES}?since=1h"
    yield "a new delivery", f"{DELIVERIES}{newest[0]}/change/"
    yield "messages", MESSAGES
    yield "messages of a signal", f"{MESSAGES}?q=signal:shop.signal_3"
    yield "messages of a signal that has none", f"{MESSAGES}?q=signal:nothing"
    yield "a new message", f"{MESSAGES}{newest[1]}/change/"
    yield "an old message", f"{MESSAGES}{oldest[1]}/change/"
    yield "deliveries of one cause that are dead", f"{DELIVERIES}?q=group:g3&state=dead"
    yield "failures by cause", f"{DELIVERIES}failures/"
    yield "failures by cause, older ones", f"{DELIVERIES}failures/?after={dead[len(dead) // 2][0]}"
    yield "pause a receiver", f"{DELIVERIES}pause/?kind=receiver&name=crm.sync"
    yield "resume a receiver", f"{DELIVERIES}resume/?kind=receiver&name=crm.sync"
    yield "signals of a row of the project", f"/admin/admissions/academy/{academy.pk}/signals/"
    yield "receivers", f"{DELIVERIES}receivers/"
    yield "operations", "/admin/signalbus/operation/"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
