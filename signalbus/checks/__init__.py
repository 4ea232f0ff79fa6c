"""System checks: `manage.py check` and a worker's start report a set-up that cannot work.

Each check is a function here. What they find in the project's code is in `unsent`, `unused_code` and
`declared_receivers`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.core import checks
from django.core.management import get_commands
from django.db import DatabaseError, connections

from signalbus import celery, conf
from signalbus.carriers import carrying, origin_of_send
from signalbus.checks.declared_receivers import examine_contracts
from signalbus.connecting.subclasses import methods_that_pick
from signalbus.core.development_socket import accepts_connections
from signalbus.doctor.broker_judgements import judge_visibility
from signalbus.doctor.run_limits import longest_run, visibility_timeout
from signalbus.exceptions import ConfigurationError
from signalbus.registration.registry import registry

if TYPE_CHECKING:
    from celery import Celery


@checks.register("signalbus")
def check_settings(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check the settings."""
    try:
        own, app = celery.is_own_app(), celery.get_app()
        celery.reject_unusable_broker(app)
        carrying.carriers()
        origin_of_send.origin_function()
    except ConfigurationError as error:
        return [checks.Error(str(error), id="signalbus.E001")]
    if own and conf.get().TEST_MODE is None and _is_about_running(sys.argv) and _lacks_broker(app):
        return [checks.Warning(celery.broker_remedy(), id="signalbus.W003")]
    return []


def _lacks_broker(app: Celery) -> bool:
    """Return whether no broker is configured, and that of ``manage.py signalbus dev`` does not run either.

    ``check`` does not ask for the latter: it is started after everything else.
    """
    if not celery.uses_development_broker():
        return not app.conf.broker_url
    return sys.argv[1:2] != ["check"] and not accepts_connections(Path(app.conf.broker_url.partition("://")[2]))


def _is_about_running(argv: list[str]) -> bool:
    """Return whether this process is about to send or receive, or was asked to look at the whole set-up.

    A command such as ``makemigrations`` or ``collectstatic`` runs all checks, and needs neither broker nor receivers.
    """
    command = argv[1] if len(argv) > 1 else ""
    return (
        command in {"check", "runserver"}
        or argv[1:3] in (["signalbus", "dev"], ["signalbus", "doctor"])
        or command not in get_commands()
    )


@checks.register("signalbus")
def check_visibility(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that Redis does not redeliver a message while its receiver still runs."""
    try:
        app = celery.get_app()
        celery.reject_unusable_broker(app)
        if not app.conf.broker_url or app.connection_for_read().transport.driver_type != "redis":
            return []
        found = judge_visibility(visibility_timeout(), *longest_run())
    except ConfigurationError:
        return []  # check_settings() tells of it
    if found.level == "ok":
        return []
    return [checks.Warning(found.text, hint=found.remedy, id="signalbus.W009")]


@checks.register("signalbus")
def check_tenants(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that a project with django-tenants carries the tenant of the sender."""
    if not apps.is_installed("django_tenants"):
        return []
    try:
        if "tenant" in carrying.carriers():
            return []
    except ConfigurationError:
        return []  # check_settings() tells of it
    text = "django-tenants is installed, and no tenant travels: a worker may load the row of another tenant."
    hint = 'Add "signalbus.carriers.TenantSchema" to SIGNALBUS["CARRY"]; silence this check if no rows are sent.'
    return [checks.Warning(text, hint=hint, id="signalbus.W006")]


@checks.register("signalbus", deploy=True)
def check_test_mode(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that nothing is delivered, or dropped, as in a test."""
    try:
        mode = conf.get().TEST_MODE
    except ConfigurationError:
        return []  # check_settings() tells of it
    if mode is None:
        return []
    text = f'SIGNALBUS["TEST_MODE"] is "{mode}": nothing that is sent reaches a worker.'
    return [checks.Warning(text, hint="Set it in the settings of a test run only.", id="signalbus.W004")]


@checks.register("signalbus")
def check_names(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that each signal with a receiver has a name, and no two signals or receivers share one."""
    found: dict[str, checks.CheckMessage] = {}
    for signal in registry:
        if signal.known_name() is None and not signal.entries() and not signal.open:
            continue  # nothing of it travels
        try:
            signal.name  # noqa: B018 - asked for its complaint
        except ConfigurationError as error:
            found[str(error)] = checks.Error(str(error), id="signalbus.E002")
        for conflict in signal.conflicts:
            found[str(conflict)] = checks.Error(str(conflict), id="signalbus.E003")
    return [found[text] for text in sorted(found)]


@checks.register("signalbus")
def check_subclasses(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that no signal's class picks the receivers itself, and so passes over those in workers."""
    found = {}
    for signal in registry:
        kind = type(signal)
        methods = methods_that_pick(kind)
        if methods and signal.entries():
            text = (
                f"{signal!r}: {', '.join(methods)} of {kind.__qualname__} looks up receivers in what Django keeps of "
                "them, which does not hold for receivers that run in workers."
            )
            hint = "Let it call super().send() instead, or connect the receivers with inline=True."
            found[text] = checks.Warning(text, hint=hint, id="signalbus.W007")
    return [found[text] for text in sorted(found)]


@checks.register("signalbus")
def check_refused(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that no receiver was refused when it was connected: the caller may have swallowed the error."""
    found = {text for signal in registry for text in signal.refusals}
    return [checks.Error(text, id="signalbus.E004") for text in sorted(found)]


@checks.register("signalbus")
def check_overlooked(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that this process sees the receivers that the apps hold, and that each signal has one."""
    if not _is_about_running(sys.argv):
        return []
    from signalbus.checks import unsent, unused_code  # noqa: PLC0415 - most processes never read the project's code

    try:
        modules = unused_code.modules_not_imported()
    except ConfigurationError:
        return []  # check_settings() tells of it
    found: list[checks.CheckMessage] = [
        checks.Warning(
            f"{module} connects receivers and is not imported: they receive nothing.",
            hint="Move them to the receivers.py of an installed app, or import the module there, or in ready() of its "
            "AppConfig.",
            id="signalbus.W005",
        )
        for module in modules
    ]
    found += [
        checks.Warning(
            f"{receiver}: it receives nothing.",
            hint="Correct its sender=, or leave that out to receive from any. If it is meant so, silence it: "
            "SILENCED_SYSTEM_CHECKS = ['signalbus.W008'].",
            id="signalbus.W008",
        )
        for receiver in unsent.receivers_without_sends()
    ]
    unused = unused_code.signals_without_receivers()
    if unused:
        text = f"Nobody is connected to {', '.join(unused)}: what is sent there reaches nobody."
        hint = "If that is meant so, silence it: SILENCED_SYSTEM_CHECKS = ['signalbus.I001']."
        found.append(checks.Info(text, hint=hint, id="signalbus.I001"))
    return found


@checks.register("signalbus")
def check_contracts(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that receivers take what their signal is declared to carry, and that each version has an upcast."""
    if not apps.ready:
        return []
    found = examine_contracts()
    remedies = [
        (found.payloads, checks.Error, "E006", "Change the class that Signal(payload=…) names, or the option."),
        (found.receivers, checks.Error, "E007", "Change the receiver, or the payload; see docs/contracts.md."),
        (found.keys, checks.Warning, "W010", "Is it misspelt? Its default is all that the receiver ever gets."),
        (found.unchecked, checks.Warning, "W011", "Correct the name, or import it where the class is."),
        (found.upcasts, checks.Warning, "W012", "Add @signal.upcast(from_version=…): older messages are parked."),
    ]
    return [
        kind(f"{text}.", hint=hint, id=f"signalbus.{number}")
        for texts, kind, number, hint in remedies
        for text in texts
    ]


@checks.register("signalbus")
def check_lock_file(**_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that the code keeps what the lock file in the repository promises, if there is one."""
    if not apps.ready or not _is_about_running(sys.argv):
        return []
    from signalbus.schemas.lock_changes import changes_between  # noqa: PLC0415 - most processes never read the file
    from signalbus.schemas.lock_file import lock_of_code, lock_path, read_lock  # noqa: PLC0415 - as above

    try:
        former = read_lock(lock_path())
        changes = [] if former is None else changes_between(former, lock_of_code(former))
    except ConfigurationError as error:
        return [checks.Warning(str(error), id="signalbus.W013")]
    return [
        checks.Warning(f"Since the lock file was written: {change.what}.", hint=change.remedy, id="signalbus.W013")
        for change in changes
        if change.is_breaking
    ]


@checks.register("signalbus", checks.Tags.database)
def check_sqlite(databases: Any = None, **_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that SQLite lets a worker and a web process write at the same time."""
    from signalbus.ledger import operations as ledger  # noqa: PLC0415 - most processes never ask for this

    alias = ledger.using()
    connection = connections[alias]
    if alias not in (databases or ()) or connection.vendor != "sqlite":
        return []
    found: list[checks.CheckMessage] = []
    if connection.settings_dict.get("OPTIONS", {}).get("transaction_mode") not in {"IMMEDIATE", "EXCLUSIVE"}:
        found.append(
            checks.Warning(
                f"The database {alias!r} is SQLite with deferred transactions: one that reads, then writes, fails at "
                "once while a worker writes.",
                hint='Set DATABASES[…]["OPTIONS"]["transaction_mode"] = "IMMEDIATE".',
                id="signalbus.W001",
            )
        )
    try:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            mode = cursor.fetchone()[0]
    except DatabaseError:
        return found  # Django's own checks tell of a database that cannot be read
    if mode not in {"wal", "memory"}:
        found.append(
            checks.Warning(
                f"The database {alias!r} is SQLite without write-ahead logging: workers and web processes block each "
                "other.",
                hint='Set DATABASES[…]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL;".',
                id="signalbus.W002",
            )
        )
    return found


@checks.register("signalbus", checks.Tags.database)
def check_tables(databases: Any = None, **_kwargs: Any) -> list[checks.CheckMessage]:
    """Check that the ledger's tables exist, where ``check`` is asked to look at their database.

    Other commands run before these exist, as ``migrate`` and, on Django 6.1, ``makemigrations`` look at databases too.
    """
    from signalbus.ledger import operations as ledger  # noqa: PLC0415 - as above

    if ledger.using() not in (databases or ()) or sys.argv[1:2] != ["check"]:
        return []
    try:
        remedy = ledger.missing()
    except DatabaseError:
        return []  # Django's own checks tell of a database that cannot be read
    return [] if remedy is None else [checks.Error(remedy, id="signalbus.E005")]
