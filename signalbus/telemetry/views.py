"""Answer Prometheus: a view of the metrics, for a URL of the project.

It shows counts and the names of signals, receivers and queues, and nothing of payloads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.http import HttpResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from signalbus import conf
from signalbus.services.actors import VIEW, may
from signalbus.telemetry.exposition import CONTENT_TYPE, text_of
from signalbus.telemetry.metric_families import NAMES, families

if TYPE_CHECKING:
    from django.http import HttpRequest


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics as Prometheus' text, for a Bearer token or a user who may view deliveries.

    The token is ``SIGNALBUS["METRICS_TOKEN"]``; without that setting there is none. ``?names=celery`` gives the metrics
    the names of celery-exporter.

    Args:
        request: a GET or HEAD.

    Returns:
        The text; 401 or 403 for who may not see it, 400 for other names.
    """
    if not _has_token(request):
        user: Any = getattr(request, "user", None)
        if user is None or not user.is_authenticated:
            refusal = _plain("Send the token as `Authorization: Bearer …`, or log in.", 401)
            refusal["WWW-Authenticate"] = "Bearer"
            return refusal
        if not may(user, VIEW):
            return _plain(f"You need the permission {VIEW}.", 403)
    names = request.GET.get("names", NAMES[0])
    if names not in NAMES:
        return _plain(f"names must be one of {', '.join(NAMES)}.", 400)
    return HttpResponse(text_of(families(names)), content_type=CONTENT_TYPE)


def _has_token(request: HttpRequest) -> bool:
    token = conf.get().METRICS_TOKEN
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return token is not None and scheme.lower() == "bearer" and constant_time_compare(given.strip(), token)


def _plain(text: str, status: int) -> HttpResponse:
    return HttpResponse(f"{text}\n", status=status, content_type="text/plain; charset=utf-8")
