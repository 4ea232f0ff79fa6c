"""Translate the texts of alerts: the ledger keeps them in English.

An alert's row has its kind, its key and its text. The numbers and names are found in the text by the pattern of its
kind; a text of another version, which has another form, is shown as it is. Called by the overview's template.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.utils.functional import Promise

    from signalbus.models import Alert

TITLES: Final[dict[str, Promise | str]] = {
    "dead": gettext_lazy("Deliveries are dead"),
    "overdue": gettext_lazy("Deliveries wait for too long"),
    "parked": gettext_lazy("Deliveries are parked"),
    "refused": gettext_lazy("Texts were refused"),
    "skew": gettext_lazy("Workers run different code"),
    "workers": gettext_lazy("No worker consumes a queue"),
}
# As `ledger/history/alerts` writes them.
PATTERNS: Final = {
    "dead": re.compile(r"(?P<number>\d+) deliver(?:y|ies)(?: to (?P<receiver>.+?))? (?:is|are) dead: (?P<error>.*)"),
    "overdue": re.compile(r"Deliveries that have waited for more than (?P<seconds>\d+) s in .*: (?P<number>\d+)\."),
    "parked": re.compile(r"(?P<number>\d+) deliver(?:y is|ies are) parked: .*"),
    "refused": re.compile(r"Texts on the broker that were refused, .*: (?P<number>\d+)\."),
    "skew": re.compile(r"Workers know different receivers: (?P<one>\S+) and (?P<other>\S+), for example\."),
    "workers": re.compile(r"No worker consumes .*; deliveries that wait in it: (?P<number>\d+)\."),
}


def alert_title(alert: Alert) -> str:
    """Return what an alert is about, as a heading; the name of a kind that is not known here."""
    return str(TITLES.get(alert.kind, alert.kind))


def alert_text(alert: Alert) -> str:
    """Return the text of an alert in the language that is active."""
    pattern = PATTERNS.get(alert.kind)
    found = None if pattern is None else pattern.fullmatch(alert.text)
    if found is None:
        return alert.text
    words = {name: value or "" for name, value in found.groupdict().items()} | {"queue": alert.key}
    return WRITERS[alert.kind](words, int(words.get("number", 0)))


def _dead(words: dict[str, str], number: int) -> str:
    if not words["receiver"]:
        return (
            ngettext("%(number)s delivery is dead: %(error)s", "%(number)s deliveries are dead: %(error)s", number)
            % words
        )
    return ngettext(
        "%(number)s delivery to %(receiver)s is dead: %(error)s",
        "%(number)s deliveries to %(receiver)s are dead: %(error)s",
        number,
    ) % words  # fmt: skip


def _parked(words: dict[str, str], number: int) -> str:
    return ngettext(
        "%(number)s delivery is parked: no worker knows what they name.",
        "%(number)s deliveries are parked: no worker knows what they name.",
        number,
    ) % words  # fmt: skip


def _refused(words: dict[str, str], _number: int) -> str:
    return _("Texts on the broker that were refused, because nobody with a key wrote them: %(number)s.") % words


def _overdue(words: dict[str, str], _number: int) -> str:
    if not words["queue"]:
        return _("Deliveries that have waited for more than %(seconds)s s in the default queue: %(number)s.") % words
    return _("Deliveries that have waited for more than %(seconds)s s in %(queue)s: %(number)s.") % words


def _workers(words: dict[str, str], _number: int) -> str:
    if not words["queue"]:
        return _("No worker consumes the default queue; deliveries that wait in it: %(number)s.") % words
    return _("No worker consumes %(queue)s; deliveries that wait in it: %(number)s.") % words


def _skew(words: dict[str, str], _number: int) -> str:
    return _("Workers know different receivers: %(one)s and %(other)s, for example.") % words


WRITERS: Final[dict[str, Callable[[dict[str, str], int], str]]] = {
    "dead": _dead, "overdue": _overdue, "parked": _parked, "refused": _refused, "skew": _skew, "workers": _workers,
}  # fmt: skip
