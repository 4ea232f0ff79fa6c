"""The addresses of the web app: ``path("signalbus/", include("signalbus.web.urls"))``.

Names that may hold any character, as a receiver's, are parameters of the query; ids are parts of the path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.urls import path

from signalbus.web.views.activity_log import activity_log
from signalbus.web.views.change_preview import change_deliveries, change_preview
from signalbus.web.views.delivery_detail import delivery_detail, rehearsal, reveal
from signalbus.web.views.delivery_list import delivery_list, find
from signalbus.web.views.doctor_report import doctor_report
from signalbus.web.views.failure_list import failure_list, note
from signalbus.web.views.graph_picture import graph_picture
from signalbus.web.views.operation_progress import operation_list, operation_progress, steer_operation
from signalbus.web.views.overview import overview
from signalbus.web.views.queue_list import pause, queue_list, resume
from signalbus.web.views.receiver_detail import receiver_detail
from signalbus.web.views.signal_list import signal_list
from signalbus.web.views.subject_history import subject_history
from signalbus.web.views.theme_choice import choose_theme
from signalbus.web.views.worker_list import worker_list

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.urls import URLPattern

app_name = "signalbus_web"
VIEWS: tuple[tuple[str, Callable[..., Any], str], ...] = (
    ("", overview, "overview"),
    ("find/", find, "find"),
    ("deliveries/", delivery_list, "deliveries"),
    ("deliveries/<uuid:pk>/", delivery_detail, "delivery"),
    ("deliveries/<uuid:pk>/reveal/", reveal, "reveal"),
    ("deliveries/<uuid:pk>/rehearse/", rehearsal, "rehearse"),
    ("history/", subject_history, "history"),
    ("failures/", failure_list, "failures"),
    ("failures/note/", note, "note"),
    ("signals/", signal_list, "signals"),
    ("graph/", graph_picture, "graph"),
    ("receiver/", receiver_detail, "receiver"),
    ("queues/", queue_list, "queues"),
    ("queues/pause/", pause, "pause"),
    ("queues/resume/", resume, "resume"),
    ("workers/", worker_list, "workers"),
    ("activity/", activity_log, "activity"),
    ("doctor/", doctor_report, "doctor"),
    ("change/", change_preview, "preview"),
    ("change/start/", change_deliveries, "change"),
    ("operations/", operation_list, "operations"),
    ("operations/<int:number>/", operation_progress, "operation"),
    ("operations/<int:number>/steer/", steer_operation, "steer"),
    ("theme/", choose_theme, "theme"),
)


def patterns(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> list[URLPattern]:
    """Return the addresses.

    Args:
        wrap: what each view is wrapped in, as the `admin_view` of an admin site.
    """
    return [path(route, wrap(view), name=name) for route, view, name in VIEWS]


urlpatterns: list[URLPattern] = patterns(lambda view: view)
