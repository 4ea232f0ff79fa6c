"""Run the example with a private Valkey, a SQLite file, a real worker and the web app, and end with a summary.

With DEMO=open in the environment it goes on: the web app stays open, and signals are sent, until Ctrl-C.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from io import StringIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

from signalbus.embedded import EmbeddedValkey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
DEADLINE = 60.0  # seconds for each step, on a slow machine
BETWEEN_SIGNALS = 0.5  # seconds, while the demo stays open
STUDENTS = 12  # of so many signals one is of a student, for whom a receiver fails
STARTED = time.monotonic()


class DemoError(Exception):
    """A step did not happen in time."""


def say(text: str, *, pid: int | None = None) -> None:
    """Print a line with the time since the start and the process."""
    print(f"[{time.monotonic() - STARTED:6.2f} s] [pid {os.getpid() if pid is None else pid}] {text}", flush=True)


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    """Wait until a function finds something.

    Args:
        what: its name, for the error.
        found: returns it, or something false.

    Returns:
        What was found.

    Raises:
        DemoError: the deadline is over.
    """
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        result = found()
        if result:
            return result
        time.sleep(0.02)
    raise DemoError(f"waited {DEADLINE:g} s for {what}")


@contextmanager
def worker(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``celery -A signalbus worker``; its output goes to a file."""
    command = [str(Path(sys.executable).with_name("celery")), "-A", "signalbus", "worker", "-l", "info", "-c", "2"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)  # noqa: S603 - our own command
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def entry(kind: str, subject: object) -> Any:
    """Wait for the row that a receiver or a task writes, and print it."""
    from tasks.marketing.models import FormEntry  # noqa: PLC0415 - after django.setup()

    rows = FormEntry.objects.filter(kind=kind, subject=subject)
    return wait_for(f"{kind!r} of {subject}", rows.first)


def failed() -> list[dict[str, Any]]:
    """Return the output of ``manage.py signalbus failed --json``."""
    return list(json.loads(manage("failed", "--json")))


def manage(*arguments: str) -> str:
    """Run ``manage.py signalbus …`` and return what it prints."""
    from django.core.management import call_command  # noqa: PLC0415 - after django.setup()

    output = StringIO()
    call_command("signalbus", *arguments, stdout=output)
    return output.getvalue()


def tell_of_a_cohort() -> None:
    """Save a cohort in a transaction; marketing reacts in another process, and starts a Celery task."""
    from django.db import transaction  # noqa: PLC0415 - after django.setup()

    from tasks.admissions.models import Academy, Cohort  # noqa: PLC0415 - after django.setup()
    from tasks.marketing.models import FormEntry  # noqa: PLC0415 - after django.setup()

    academy = Academy.objects.create(name="Downtown", slug="downtown")
    with transaction.atomic():
        cohort = Cohort.objects.create(academy=academy, name="Web 42", slug="web-42")
        say(f"cohort {cohort.pk} saved and cohort_saved sent, inside a transaction; nothing has left this process yet")
    say("committed: the message is on the queue")
    row = entry("cohort created", cohort.pk)
    say(f"marketing's receiver ran: cohort {cohort.pk} was just created", pid=row.pid)
    row = entry("tag", f"{cohort.pk}:{cohort.slug}")
    say(f"the Celery task that it called tagged {cohort.slug!r}", pid=row.pid)
    cohort.name = "Web 42, evening"
    cohort.save()
    say(f"cohort {cohort.pk} saved again")
    row = entry("cohort updated", cohort.pk)
    say(f"marketing's receiver ran: cohort {cohort.pk} was just updated", pid=row.pid)
    try:
        with transaction.atomic():
            ghost = Cohort.objects.create(academy=academy, name="Ghost", slug="ghost")
            ghost_id = ghost.pk
            raise DemoError("somebody pulled the plug")
    except DemoError:
        say("a second cohort was saved, and its transaction rolled back")
    marker = Cohort.objects.create(academy=academy, name="Web 43", slug="web-43")
    entry("tag", f"{marker.pk}:{marker.slug}")
    if FormEntry.objects.filter(subject__endswith=":ghost").exists() or Cohort.objects.filter(slug="ghost").exists():
        raise DemoError(f"the rolled-back cohort {ghost_id} was told of")
    say("a later cohort was told of; the rolled-back one was not: nothing was sent")


def tell_of_a_drop_out(switch: Path) -> None:
    """Let a student drop out; one receiver fails twice and succeeds, one is dead, listed and retried."""
    from django.contrib.auth.models import User  # noqa: PLC0415 - after django.setup()

    from tasks.admissions.models import Cohort, CohortUser  # noqa: PLC0415 - after django.setup()

    student = User.objects.create(username="ada")
    place = CohortUser.objects.create(
        cohort=Cohort.objects.get(slug="web-42"), user=student, educational_status=CohortUser.EducationalStatus.DROPPED
    )
    say(f"student {student.username} dropped out: student_edu_status_updated sent, to three receivers")
    row = entry("student", place.pk)
    say("the healthy receiver's task ran; the two others disturb it not", pid=row.pid)
    row = entry("CRM told, attempt 3", place.pk)
    say("the receiver that failed twice succeeded on its third attempt", pid=row.pid)
    dead = wait_for("the dead delivery", lambda: [item for item in failed() if item["state"] == "dead"])
    say("the other one is dead after its two attempts; `manage.py signalbus failed` lists it:")
    print("\n".join(f"    {line}" for line in manage("failed").splitlines()), flush=True)
    switch.touch()
    say("the form service opens; `manage.py signalbus retry` is called")
    manage("retry", dead[0]["id"])
    row = entry("form sent", place.pk)
    say("and the receiver succeeded", pid=row.pid)
    wait_for("an empty list of failures", lambda: not failed())
    say("`manage.py signalbus failed` says: " + manage("failed").strip())


def show_the_web_app(address: str) -> None:
    """Look at two pages of the web app, which must know what has happened."""
    from tasks.demo.web_server import page  # noqa: PLC0415 - after django.setup()

    for path, text in (("", "</dl>"), ("deliveries/", "cohort_post_save"), ("graph/", "cohort_saved")):
        if text not in page(f"{address}{path}"):
            raise DemoError(f"{address}{path} does not show {text!r}")
    say(f"the web app showed all of it at {address}")


def keep_open(address: str, switch: Path) -> None:
    """Send signals until Ctrl-C, of which some fail: the web app has something to show."""
    from django.contrib.auth.models import User  # noqa: PLC0415 - after django.setup()

    from tasks.admissions.models import Cohort, CohortUser  # noqa: PLC0415 - after django.setup()

    switch.unlink(missing_ok=True)
    cohort, dropped = Cohort.objects.get(slug="web-42"), CohortUser.EducationalStatus.DROPPED
    say("the form service is closed again: a failure stays, to be looked at and retried; signals are sent all the time")
    print(f"\n    Open {address}\n    Ctrl-C ends the demo.\n", flush=True)
    try:
        for number in count():
            cohort.save()
            if number % STUDENTS == 0:
                user = User.objects.create(username=f"student {number}")
                CohortUser.objects.create(cohort=cohort, user=user, educational_status=dropped)
            time.sleep(BETWEEN_SIGNALS)
    except KeyboardInterrupt:
        print(flush=True)


def main() -> int:
    """Run the demo.

    Returns:
        The exit code: 0 if every step came about.
    """
    directory = Path(tempfile.mkdtemp(prefix="signalbus-demo-"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.demo"
    os.environ["DATABASE_URL"] = f"sqlite:///{directory / 'db.sqlite3'}"
    os.environ["DEMO_FORM_SERVICE"] = str(directory / "open")
    log = directory / "worker.log"
    try:
        with EmbeddedValkey() as valkey:
            os.environ["CELERY_BROKER_URL"] = valkey.url
            django.setup()
            from django.core.management import call_command  # noqa: PLC0415 - after django.setup()

            from tasks.demo.web_server import web_app  # noqa: PLC0415 - after django.setup()

            call_command("migrate", verbosity=0)
            say(f"a private Valkey runs as pid {valkey.pid}; a SQLite database is in {directory}")
            with web_app() as address, worker(log) as process:
                say(f"the web app is at {address}")
                say("started: celery -A signalbus worker", pid=process.pid)
                wait_for("the worker", lambda: b" ready." in log.read_bytes() or process.poll() is not None)
                if process.poll() is not None:
                    raise DemoError("the worker ended at once")
                say("the worker is ready", pid=process.pid)
                tell_of_a_cohort()
                tell_of_a_drop_out(directory / "open")
                show_the_web_app(address)
                if os.environ.get("DEMO") == "open":
                    keep_open(address, directory / "open")
    except DemoError as error:
        say(f"FAILED: {error}")
        print(log.read_text(errors="replace") if log.exists() else "", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    say("worker and Valkey stopped, files removed")
    print(
        "\nWhat you saw: signals sent inside transactions reached receivers in other processes after the commit; a\n"
        "rollback sent nothing; a failing receiver was retried, a dead one was listed and retried by hand, and nobody\n"
        "else noticed.\n"
        "The code: tasks/admissions (sends), tasks/marketing (receives). Next: README.md, docs/receivers.md.\n"
        "`make demo DEMO=open` keeps the web app open, with failures to look at and to retry."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
