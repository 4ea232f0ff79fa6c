"""Show the graph of signals as a drawing and as a table."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from signalbus.graph.signal_graph import GraphNode, SignalGraph, signal_graph
from signalbus.graph.svg_drawing import rate_text, svg_of
from signalbus.web.page_access import page
from signalbus.web.page_layout import render_page, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from django.http import HttpRequest, HttpResponse
    from django.utils.functional import Promise

    from signalbus.services.actors import Actor

TableNode = tuple[GraphNode, str, str]  # with the address of its page, and its marks in words
MOST_CHARS: Final = 100  # of the text that is looked for
MARKS: Final[dict[str, Promise | str]] = {
    "unheard": gettext_lazy("nobody listens"),
    "unreached": gettext_lazy("no delivery so far"),
    "unconsumed": gettext_lazy("no worker"),
    "paused": gettext_lazy("paused"),
}
PAGES: Final = {"signal": ("signals", "q"), "receiver": ("receiver", "id"), "app": ("graph", "app")}


@page()
def graph_picture(request: HttpRequest, actor: Actor) -> HttpResponse:
    """Show senders, signals, receivers and queues with the lines between them, and the same as a table."""
    part, app = (request.GET.get(key, "")[:MOST_CHARS].replace("\x00", "").strip() for key in ("q", "app"))
    graph = signal_graph(actor, part=part, app=app)
    link = _link(request)
    context = {
        "graph": graph, "rows": list(_rows(graph, link)), "q": part, "app": app, "every": 15,
        "drawing": svg_of(
            graph, title=_("Who sends to whom"), description=_description(graph), marks=MARKS, link=link
        ),
    }  # fmt: skip
    return render_page(request, actor, "graph.html", "graph", context)


def _description(graph: SignalGraph) -> str:
    signals = ngettext("%(number)s signal", "%(number)s signals", graph.signals) % {"number": graph.signals}
    ends = ngettext("%(number)s dead end", "%(number)s dead ends", graph.dead_ends) % {"number": graph.dead_ends}
    return f"{signals}, {ends}. {_('The same stands in the table below.')}"


def _link(request: HttpRequest) -> Callable[[GraphNode], str]:
    """Return a function that returns the address of a node's page."""
    addresses = {kind: url_of(request, name) for kind, (name, _key) in PAGES.items()}
    queues = url_of(request, "queues")

    def address(node: GraphNode) -> str:
        if node.kind == "queue":
            return queues
        return f"{addresses[node.kind]}?{urlencode({PAGES[node.kind][1]: node.name[:1000]}, errors='replace')}"

    return address


def _rows(graph: SignalGraph, link: Callable[[GraphNode], str]) -> Iterator[dict[str, Any]]:
    """Yield the lines of the table: for each receiver of a signal who sends it, and through which queue it comes."""
    nodes: dict[str, TableNode] = {
        key: (node, link(node), ", ".join(str(MARKS[mark]) for mark in node.marks)) for key, node in graph.nodes.items()
    }
    before: defaultdict[str, list[TableNode]] = defaultdict(list)
    after: defaultdict[str, list[TableNode]] = defaultdict(list)
    for edge in graph.edges:
        before[edge.target].append(nodes[edge.source])
        if not edge.is_cascade:
            after[edge.source].append(nodes[edge.target])
    for edge in graph.edges:
        if edge.rate is not None and not edge.is_cascade:
            yield {
                "signal": nodes[edge.source], "senders": before[edge.source] or [nodes[edge.source]],
                "receiver": nodes[edge.target], "queues": after[edge.target], "rate": rate_text(edge.rate),
            }  # fmt: skip
    for key, node in graph.nodes.items():
        if node.kind == "signal" and not after[key]:
            yield {"signal": nodes[key], "senders": before[key], "receiver": None, "queues": [], "rate": ""}
