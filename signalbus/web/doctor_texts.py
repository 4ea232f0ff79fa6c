"""Say the doctor's findings in the reader's language: `doctor/` writes them in English, as its command prints them.

A text is recognized by the form in which it is written, and its names and numbers are put into the translation of that
form. A text of no known form, as an error's, is shown as it is. Called by the template of the doctor's page.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from django.utils.translation import gettext, gettext_noop

# As the functions of `doctor/` write them; the longer ones first where two begin alike.
FORMS: Final[tuple[str, ...]] = (
    gettext_noop("maxmemory-policy is noeviction: a full Redis refuses messages, and senders keep them."),
    gettext_noop("maxmemory-policy is %(policy)s; nothing is evicted only because maxmemory is not set."),
    gettext_noop(
        "maxmemory-policy is %(policy)s: a full Redis evicts the heartbeats of workers, and then refuses messages."
    ),
    gettext_noop("maxmemory-policy is %(policy)s: a full Redis throws away whole queues."),
    gettext_noop("Set maxmemory-policy noeviction, and give a cache a Redis of its own."),
    gettext_noop("No item of a queue is in quarantine: all were messages."),
    gettext_noop("%(number)s items of queues are in quarantine: they were no messages, and no worker runs them."),
    gettext_noop("See who writes to the broker: LRANGE %(key)s 0 -1 shows where each came from. Then delete the list."),
    gettext_noop("Set appendonly yes and appendfsync everysec, or make these signals durable."),
    gettext_noop("Redis cannot write its append-only file."),
    gettext_noop("Look at its log, and at its disk."),
    gettext_noop("The append-only file is on (appendfsync %(value)s)."),
    gettext_noop("The append-only file is on."),
    gettext_noop(
        "The append-only file is off; all signals are durable, and what Redis loses is published again from the ledger."
    ),
    gettext_noop(
        "appendfsync is no; all signals are durable, and what Redis loses is published again from the ledger."
    ),
    gettext_noop("The append-only file is off: a restart of Redis loses messages of %(signals)s (durable=False)."),
    gettext_noop("appendfsync is no: a restart of Redis loses messages of %(signals)s (durable=False)."),
    gettext_noop(
        "A message is redelivered %(after)s s after a worker took it; a run may take %(longest)s s (%(why)s): "
        "it then runs twice at a time."
    ),
    gettext_noop(
        "A message is redelivered %(after)s s after a worker took it; a run may take %(longest)s s (%(why)s)."
    ),
    gettext_noop('Set CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": …} to more than %(longest)s.'),
    gettext_noop("The database's clock and this machine's agree within %(seconds)s s."),
    gettext_noop("The broker's clock and this machine's agree within %(seconds)s s."),
    gettext_noop(
        "The %(whose)s's clock is %(seconds)s s ahead of this machine's: what is sent for later is early or late by "
        "that."
    ),
    gettext_noop(
        "The %(whose)s's clock is %(seconds)s s behind this machine's: what is sent for later is early or late by that."
    ),
    gettext_noop("Let NTP (chrony, systemd-timesyncd) set the clocks of all machines."),
    gettext_noop("The database cannot be asked: %(error)s"),
    gettext_noop("The broker cannot be asked: %(error)s"),
    gettext_noop(
        "Start a worker without -Q, or with this queue among its -Q; manage.py signalbus status prints the command."
    ),
    gettext_noop("The broker cannot be asked who consumes %(queue)s: %(error)s"),
    gettext_noop("See broker.answers."),
    gettext_noop("The broker refuses the queue %(queue)s: %(error)s"),
    gettext_noop("Delete it when it is empty."),
    gettext_noop("Whether a worker consumes %(queue)s cannot be told."),
    gettext_noop("manage.py signalbus status says why."),
    gettext_noop("No worker consumes %(queue)s: what is sent there waits."),
    gettext_noop("%(queue)s is consumed by %(number)s worker."),
    gettext_noop("%(queue)s is consumed by %(number)s workers."),
    gettext_noop(
        "Give all of them the same SECRET_KEY, or the other's as one of SECRET_KEY_FALLBACKS; nothing is lost."
    ),
    gettext_noop("%(number)s parked texts are signed with a key that is not known here."),
    gettext_noop(
        "%(number)s parked texts are signed with a key of this process, and workers could not open them: they lack the "
        "key, or are of an older version."
    ),
    gettext_noop("No text is parked for an unknown key."),
    gettext_noop("%(lacking)s: it parks what is sent to these."),
    gettext_noop("Restart the worker with the code that runs here, or deploy the code that it runs."),
    gettext_noop("%(number)s of %(total)s workers know all receivers that this process knows."),
    gettext_noop("All workers run %(release)s, as this process."),
    gettext_noop("This process runs %(release)s; %(others)s."),
    gettext_noop("During a deploy this ends by itself; else restart them."),
    gettext_noop("All migrations of signalbus are applied."),
    gettext_noop("Not applied: %(names)s."),
    gettext_noop("Run manage.py migrate signalbus%(option)s."),
    gettext_noop("A sweeper worked %(time)s ago."),
    gettext_noop("No sweeper has ever worked: nothing is retried, and nothing that was lost comes back."),
    gettext_noop("No sweeper has worked for %(time)s: nothing is retried, and nothing that was lost comes back."),
    gettext_noop('SIGNALBUS["SWEEP_SECONDS"] is 0 here: start a worker where it is not.'),
    gettext_noop("Start a worker."),
    gettext_noop("Nothing is kept for much longer than KEEP_SECONDS (%(time)s)."),
    gettext_noop("The tables grow: what ended %(time)s ago is not purged, and KEEP_SECONDS is %(keep)s."),
    gettext_noop("Run manage.py signalbus purge when the database is quiet; see that a worker runs, and its log."),
    gettext_noop("%(number)s wait in %(queue)s, the oldest for %(time)s."),
    gettext_noop("%(number)s wait in %(queue)s."),
    gettext_noop("Start more workers, or find what keeps them busy: manage.py signalbus status, failed."),
    gettext_noop("Nothing is dead or parked; %(number)s wait for their next attempt."),
    gettext_noop("%(dead)s dead, %(parked)s parked, %(number)s wait for their next attempt."),
    gettext_noop("manage.py signalbus failed lists them with their errors."),
    gettext_noop("What needs them was left out."),
    gettext_noop("The system checks of signalbus find nothing."),
    gettext_noop("Does the database run, and is DATABASES right? What needs it was left out."),
)


def doctor_text(text: str) -> str:
    """Return a text or a remedy of a finding in the language that is active.

    Args:
        text: as the doctor wrote it.
    """
    for form, pattern in _patterns():
        found = pattern.fullmatch(text)
        if found is not None:
            return gettext(form) % found.groupdict()
    return text


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Return each form with the expression of the texts that have it."""
    return tuple((form, re.compile(_expression(form), re.DOTALL)) for form in FORMS)


def _expression(form: str) -> str:
    """Return a form as a regular expression: its places are groups, which may be empty."""
    parts, end = [], 0
    for place in re.finditer(r"%\((\w+)\)s", form):
        parts += [re.escape(form[end : place.start()]), f"(?P<{place[1]}>.*?)"]
        end = place.end()
    return "".join([*parts, re.escape(form[end:])])
