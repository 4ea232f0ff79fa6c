"""List deliveries by a filter, page by page; and find what somebody typed into the search box of each page."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django.http import HttpResponseRedirect

from signalbus.core.printable_text import printable
from signalbus.ledger import operations as ledger
from signalbus.models import Delivery, State, StoredMessage
from signalbus.pages.bounded_search import COUNTED, find_keys, read_search
from signalbus.pages.delivery_search import id_in, search_deliveries, words_of
from signalbus.pages.open_counts import Capped
from signalbus.pages.shown_text import short
from signalbus.services.filters import MAX_CHARACTERS
from signalbus.services.queries.explanation import known_signals
from signalbus.web.file_export import file_of, format_of, iso
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from django.db.models import QuerySet
    from django.http import HttpRequest, HttpResponse

    from signalbus.pages.bounded_search import FoundKeys
    from signalbus.services.actors import Actor

ROWS: Final = 50  # of a page
EXPORTED: Final = 1000  # rows of a file
SUGGESTED: Final = 100  # receivers and signals that the box suggests
ERROR_CHARS: Final = 300
AGES: Final = {"1h": "1 h", "8h": "8 h", "3d": "3 d", "30d": "30 d", "": "all"}
COLUMNS: Final = ("id", "state", "signal", "receiver", "subject", "attempts", "sent", "ended", "runtime_ms", "error")


@page()
def delivery_list(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the deliveries that a filter selects; as CSV or JSON if the address asks for it."""
    text, since = request.GET.get("q", "")[: MAX_CHARACTERS + 1], _since(request)
    after, kind = id_in(request.GET.get("after", "")), format_of(request)
    search = read_search(lambda: search_deliveries(_words(text, since)))
    rows = Delivery.objects.using(ledger.using()).select_related("message").defer("traceback", "message__text")
    if kind and not search.error:
        found = find_keys(rows, search, EXPORTED, after)
        return file_of("deliveries", kind, COLUMNS, _rows(rows.filter(pk__in=found.keys).order_by("-pk")))
    found = find_keys(rows, search, COUNTED if after is None else ROWS, after)
    keys = found.keys[:ROWS]
    shown = list(rows.filter(pk__in=keys).order_by("-pk")) if keys else []
    asked = {"q": text, "since": since or "all"}
    context = {
        "rows": shown, "q": printable(text, MAX_CHARACTERS + 1), "since": since, "ages": AGES, "states": State,
        "error": printable(search.error, ERROR_CHARS), "asked": urlencode({"q": text}),
        "every": 5 if after is None else 0, "is_first": after is None,
        "suggestions": _suggestions(), "filter": search.text, "after": after,
        "count": Capped(len(found.keys), found.has_more) if after is None else Capped(len(keys)),
        "export": urlencode(asked), "searched": f"{search.most:,}",
        **_links(asked, found, keys), "has_window": not search.is_indexed and found.end is not None,
        "command": "" if search.error else _command(_words(text, since)),
    }  # fmt: skip
    return render_page(request, actor, "delivery_list.html", "deliveries", context)


def _since(request: HttpRequest) -> str:
    """Return the age that the range of time asks for; none if the filter has a time of its own, or an id."""
    given = request.GET.get("since")
    return given if given in AGES else ""


def _words(text: str, since: str) -> list[str]:
    """Return the words of the filter, with that of the range of time."""
    return [*words_of(text), *([f"since:{since}"] if since else [])]


def _command(words: list[str]) -> str:
    """Return the command that lists the same deliveries; none lists all."""
    return f"manage.py signalbus failed {printable(shlex.join(words), MAX_CHARACTERS)}" if words else ""


def _links(asked: dict[str, str], found: FoundKeys, keys: list[Any]) -> dict[str, str]:
    has_more = found.has_more or len(found.keys) > len(keys)

    def link(after: UUID) -> str:
        return urlencode({**asked, "after": str(after)})

    return {
        "older": link(keys[-1]) if has_more and keys else "",
        "further": "" if found.end is None or has_more else link(found.end),
        "newest": urlencode(asked),
    }


def _suggestions() -> list[str]:
    """Return words for the box: states, and the receivers and signals that this process knows."""
    signals = known_signals()
    names = [f"signal:{name}" for name in signals]
    receivers = [f"receiver:{entry.id}" for signal in signals.values() for entry in signal.entries()]
    words = [*(f"state:{state}" for state in State.values), *sorted({*names, *receivers})[:SUGGESTED]]
    return [short(word) for word in (*words, "attempts:>1", "error:KeyError", "subject:app.model:42", "since:2h")]


def _rows(found: QuerySet[Delivery]) -> Iterator[dict[str, Any]]:
    """Yield deliveries as rows of a file; without making objects of them, which would take longer than to read them."""
    columns = (
        "pk", "state", "message__signal", "receiver", "message__subject", "attempts", "created_at", "ended_at",
        "runtime_ms", "error",
    )  # fmt: skip
    for row in found.values_list(*columns):
        values = [iso(value) if isinstance(value, datetime) else value for value in row]
        yield dict(zip(COLUMNS, [str(values[0]), *values[1:]], strict=True))


@page()
def find(request: HttpRequest, actor: Actor) -> HttpResponse:  # noqa: ARG001 - a view's signature
    """Lead to what somebody typed: an id, an object as ``shop.order:42``, a receiver, a signal, or a filter."""
    text = request.GET.get("q", "")[: MAX_CHARACTERS + 1].strip()
    wanted = id_in(text)
    if wanted is not None:
        return HttpResponseRedirect(_page_of(request, wanted))
    if _is_subject(text):
        return HttpResponseRedirect(f"{url_of(request, 'history')}?{urlencode({'subject': text})}")
    if text and ":" not in text and (named := _named(text)):
        return HttpResponseRedirect(f"{url_of(request, named[0])}?{urlencode({named[1]: text})}")
    return HttpResponseRedirect(f"{url_of(request, 'deliveries')}?{urlencode({'q': text})}")


def _named(text: str) -> tuple[str, str] | None:
    """Return the page, and its parameter, of the receiver with a name, or of the signals and receivers that have it."""
    signals = known_signals()
    receivers = [entry.id for signal in signals.values() for entry in signal.entries()]
    if text in receivers:
        return "receiver", "id"
    has_it = any(text.lower() in name.lower() for name in (*signals, *receivers))
    return ("signals", "q") if has_it else None


def _page_of(request: HttpRequest, wanted: UUID) -> str:
    """Return the address of a delivery, or of the first delivery of a message."""
    alias = ledger.using()
    if not Delivery.objects.using(alias).filter(pk=wanted).exists():
        message = StoredMessage.objects.using(alias).filter(pk=wanted)
        first = Delivery.objects.using(alias).filter(message__in=message).order_by("id")
        wanted = next(iter(first.values_list("id", flat=True)[:1]), wanted)
    return url_of(request, "delivery", wanted)


def _is_subject(text: str) -> bool:
    """Return whether a text names an object: a model's label, a colon and a key; no key of a filter has a dot."""
    label, colon, key = text.partition(":")
    return bool(colon and key) and "." in label and not any(char.isspace() for char in label)
