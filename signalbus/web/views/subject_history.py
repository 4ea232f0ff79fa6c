"""Show what happened to an object: all messages about it, with their deliveries, the youngest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from django.utils.translation import gettext as _

from signalbus.ledger import operations as ledger
from signalbus.models import State, StoredMessage
from signalbus.services.filters import subject_from
from signalbus.services.queries.lookup import History, history_of
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

    from signalbus.services.actors import Actor

MESSAGES: Final = 100  # of a page
MOST_CHARS: Final = 500  # of an object's name


@page()
def subject_history(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show the messages about the object that the address names, those with unfinished deliveries on top."""
    given = request.GET.get("subject", "").strip()
    problem = _("Name an object in at most 500 characters, as shop.order:42.") if len(given) > MOST_CHARS else ""
    asked = "" if problem else given.replace("\x00", "")
    history = history_of(asked, MESSAGES) if asked else History([], has_more=False, searched_from=None)
    found = history.messages
    open_deliveries = [
        (message, delivery)
        for message in found
        for delivery in message.deliveries
        if State(delivery.state).facts.is_open or delivery.state == State.DEAD
    ]
    oldest = StoredMessage.objects.using(ledger.using()).order_by("id").values_list("created_at", flat=True)[:1]
    context = {
        "asked": asked, "subject": subject_from(asked) if asked else "", "messages_sent": found[::-1],
        "has_more": history.has_more,
        "searched_from": history.searched_from, "most": MESSAGES, "problem": problem,
        "unfinished": open_deliveries[::-1],
        "oldest": next(iter(oldest), None) if asked and not found else None, "every": 5 if open_deliveries else 0,
    }  # fmt: skip
    return render_page(request, actor, "subject_history.html", "deliveries", context)
