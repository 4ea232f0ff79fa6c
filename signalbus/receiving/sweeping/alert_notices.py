"""Tell people of alerts by mail and by a webhook, and a watcher outside that the bus is alive. Called by the sweeper.

All of it happens in a thread of its own, so that a slow mail server does not hold up a sweep. The thread does not use
the database: the sweeper keeps what the thread has sent. So a notice is sent again if its worker is killed between the
two.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.request import HTTPRedirectHandler, Request, build_opener

from django.core.mail import mail_admins
from django.urls import NoReverseMatch, reverse

from signalbus import conf
from signalbus.core.printable_text import printable
from signalbus.ledger import sweeps as ledger
from signalbus.receiving.invoking.runner import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from signalbus.ledger.history import Condition, Notice

logger: logging.Logger = logging.getLogger("signalbus")

THREAD: Final = "signalbus-alerts"  # the name of the thread that sends
ANSWER_SECONDS: Final = 5.0  # for a webhook to answer
SUBJECT_CHARS: Final = 120
STUCK: Final = frozenset({"overdue", "workers"})  # kinds of alerts during which the bus is not well
# The pages about a kind of alerts, in the web app or else in the admin.
FAILURES: Final[tuple[str, ...]] = ("signalbus_web:failures", "admin:signalbus_failures")
PAGES: Final[dict[str, tuple[str, ...]]] = {
    "dead": FAILURES,
    "workers": ("signalbus_web:queues", "admin:signalbus_delivery_changelist"),
    "overdue": ("signalbus_web:queues", "admin:signalbus_delivery_changelist"),
    "skew": ("signalbus_web:workers", "admin:signalbus_receivers"),
}
DELIVERIES: Final[tuple[str, ...]] = ("signalbus_web:deliveries", "admin:signalbus_delivery_changelist")


class _RefuseRedirects(HTTPRedirectHandler):
    """Follow no redirect: an address that is checked may not lead to another."""

    def redirect_request(self, *_asked: Any, **_options: Any) -> None:
        """Return no further request, so that the redirect is an error."""


def request(address: str, content: bytes | None = None) -> None:
    """Request an address, with a JSON text to be posted or without.

    Raises:
        OSError: it cannot be reached, does not answer in time, or answers with an error or a redirect.
    """
    headers = {"User-Agent": "signalbus"} | ({"Content-Type": "application/json"} if content is not None else {})
    asked = Request(address, data=content, headers=headers)  # noqa: S310 - conf has checked the scheme
    with build_opener(_RefuseRedirects).open(asked, timeout=ANSWER_SECONDS):
        pass


def page_of(condition: Condition) -> str:
    """Return the address of a page about a condition; empty without ``base_url``, or without any such page."""
    base = str(conf.get().alerts()["base_url"]).rstrip("/")
    for page in PAGES.get(condition.kind, DELIVERIES) if base else ():
        try:
            return base + reverse(page)
        except NoReverseMatch:
            continue  # this project has no such pages
        except Exception as error:  # noqa: BLE001 - the project's URLs may raise anything in a worker
            logger.warning("signalbus cannot name a page about an alert: %s", describe(error))
            break
    return ""


def _text_of(condition: Condition) -> str:
    """Return what is wrong, on one line; without the text of an error if the settings say so."""
    shown = condition.text if conf.get().alerts()["errors"] else condition.summary
    return printable(shown)


def _send_mail(notice: Notice) -> None:
    condition, over = notice.condition, notice.change == "cleared"
    text = _text_of(condition)
    subject = printable(f"signalbus: {'over: ' if over else ''}{text}", SUBJECT_CHARS)
    said = "This alert is over." if over else f"An alert was raised ({condition.level}, {condition.kind})."
    mail_admins(subject, "\n\n".join(filter(None, (said, text, page_of(condition)))))


def _post(notice: Notice) -> None:
    condition, over = notice.condition, notice.change == "cleared"
    # Entities, as Slack asks: an error's text could call everybody of a channel, or hide an address behind a word.
    text = f"signalbus: {'over: ' if over else ''}{escape(_text_of(condition), quote=False)}"
    page = page_of(condition)
    content = {
        "text": f"{text}\n{page}" if page else text,
        "id": f"{notice.alert}-{notice.change}",
        "kind": condition.kind,
        "key": condition.key,
        "level": condition.level,
        "raised": not over,
        "url": page,
    }
    request(conf.get().alerts()["webhook"], json.dumps(content).encode())


NOTIFIERS: Final[dict[str, Callable[[Notice], None]]] = {"mail_admins": _send_mail, "webhook": _post}


class AlertNotices:
    """The notices of one sweeper."""

    def __init__(self) -> None:
        self._sent: deque[Notice] = deque()
        self._thread: threading.Thread | None = None

    def keep_sent(self) -> None:
        """Keep in the ledger what the thread has sent since.

        Raises:
            DatabaseError: the ledger could not be reached; the next call tries again.
        """
        while self._sent:
            ledger.keep_notice(self._sent[0])
            self._sent.popleft()

    def send(self) -> None:
        """Begin to send what is unsent, unless the last sending is still under way.

        Raises:
            DatabaseError: the ledger could not be reached.
        """
        settings = conf.get()
        if self._thread is not None and self._thread.is_alive():
            return
        self.keep_sent()
        wanted = [name for name in NOTIFIERS if settings.alerts()[name]]
        notices = ledger.unsent_notices(wanted) if wanted else []
        heartbeat = settings.HEARTBEAT_URL
        if heartbeat and any(condition.kind in STUCK for condition in ledger.open_alerts()):
            heartbeat = None
        if notices or heartbeat:
            self._thread = threading.Thread(target=self._send, args=(notices, heartbeat), name=THREAD, daemon=True)
            self._thread.start()

    def _send(self, notices: Sequence[Notice], heartbeat: str | None) -> None:
        failed: set[str] = set()  # notifiers: the next one would wait as long
        for notice in notices:
            if notice.notifier in failed:
                continue
            try:
                NOTIFIERS[notice.notifier](notice)
            except Exception as error:  # noqa: BLE001 - the project's mail backend may raise anything
                failed.add(notice.notifier)
                _log_failure(notice.notifier, error)
            else:
                self._sent.append(notice)
        if heartbeat:
            try:
                request(heartbeat)
            except OSError as error:
                _log_failure("HEARTBEAT_URL", error)


def _log_failure(notifier: str, error: Any) -> None:
    # The address of a webhook is a secret: it is not in these errors.
    logger.error(
        "signalbus could not tell of alerts by %s, and will try again: %s", notifier, printable(str(error), 200)
    )
