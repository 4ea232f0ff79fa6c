"""Draw a graph as SVG: for the web app's page, where a stylesheet colours it, or as a file of its own.

Every text passes through `format_html`. A dead end has another outline, a sign and words, so that its colour is not
needed. The colours are those of `static/signalbus/graph.css`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.utils.formats import number_format
from django.utils.html import format_html, format_html_join

import signalbus
from signalbus.core.printable_text import printable
from signalbus.graph.layered_layout import Box, place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from django.utils.safestring import SafeString

    from signalbus.graph.signal_graph import GraphEdge, GraphNode, SignalGraph

# What stands in a box; the web app translates it.
MARKS: Final[Mapping[str, str]] = {
    "unheard": "nobody listens",
    "unreached": "no delivery so far",
    "unconsumed": "no worker",
    "paused": "paused",
}
WIDTHS: Final = {"app": 120, "signal": 220, "receiver": 260, "queue": 130}  # pixels
GAPS: Final = (60, 110, 60)  # pixels between the columns
BY_APP: Final = (150, 60)
MARGIN: Final = 12  # pixels
ONE_LINE: Final = 26  # pixels: the height of a box with a name alone
TWO_LINES: Final = 42
CHAR: Final = 7.4  # pixels of a character of 12 px in a monospaced font
SMALL_CHAR: Final = 6.8
FEW_RECEIVERS: Final = 12  # whose queues are drawn once
CORNER: Final = 9  # pixels that a dead end lacks at its corners
COLOURS: Final = {
    "surface": ("#ffffff", "#171b21"), "line": ("#dce0e6", "#2d343e"), "edge": ("#7f8896", "#727d8d"),
    "text": ("#171b21", "#e6e9ee"), "muted": ("#535d6c", "#a3adbb"), "accent": ("#2b50cf", "#9db7ff"),
    "bad": ("#b3261e", "#ff9f96"), "bad-ground": ("#fdebe9", "#3a1c1a"), "warn": ("#805000", "#f0b94f"),
    "warn-ground": ("#fbf1dc", "#33280f"), "sunken": ("#eceff3", "#222831"),
}  # fmt: skip
RULES: Final = Path(signalbus.__file__).parent / "static" / "signalbus" / "graph.css"


@dataclass(frozen=True, slots=True)
class _Placed:
    """A node in its place, in pixels."""

    node: GraphNode
    x: int
    y: int
    width: int
    height: int

    @property
    def middle(self) -> int:
        return self.y + self.height // 2

    @property
    def end(self) -> int:
        return self.x + self.width


def rate_text(rate: float | None) -> str:
    """Return a rate as a line shows it: "12/min", with one digit below ten."""
    return "" if not rate else f"{number_format(max(rate, 0.1), 0 if rate >= 10 else 1)}/min"  # noqa: PLR2004 - see above


def svg_of(
    graph: SignalGraph,
    *,
    title: str,
    description: str,
    marks: Mapping[str, Any] = MARKS,
    link: Callable[[GraphNode], str] | None = None,
) -> SafeString:
    """Return a graph as an SVG element, with classes for its colours.

    Args:
        graph: the graph.
        title: what it shows, for people who do not see it.
        description: more of that.
        marks: the words of the marks.
        link: returns the address of a node's page; None for a drawing without links.
    """
    graph = _with_queues_beside(graph)
    placed = _placed(graph)
    width = max((each.end for each in placed.values()), default=0) + MARGIN
    height = max((each.y + each.height for each in placed.values()), default=0) + MARGIN
    lines = format_html_join("", "{}", ((_edge(edge, placed),) for edge in graph.edges))
    boxes = format_html_join("\n", "{}", ((_node(each, marks, link),) for each in placed.values()))
    return format_html(
        '<svg class="graph" xmlns="http://www.w3.org/2000/svg" width="{0}" height="{1}" viewBox="0 0 {0} {1}" '
        'role="group" aria-labelledby="graph-name graph-description"><title id="graph-name">{2}</title>'
        '<desc id="graph-description">{3}</desc>\n<g>{4}</g>\n{5}</svg>',
        width, height, title, description, lines, boxes,
    )  # fmt: skip


def svg_file(graph: SignalGraph) -> str:
    """Return a graph as the text of an SVG file, which is dark where the reader prefers that.

    Args:
        graph: the graph.
    """
    light, dark = ("".join(f"--{name}:{pair[index]};" for name, pair in COLOURS.items()) for index in range(2))
    style = f".graph{{{light}background:var(--surface)}}@media(prefers-color-scheme:dark){{.graph{{{dark}}}}}\n"
    text = svg_of(graph, title="Signals", description="Who sends to whom: senders, signals, receivers and queues.")
    return f"{text.replace('<title', f'<style>{style}{RULES.read_text()}</style><title', 1)}\n"


def _with_queues_beside(graph: SignalGraph) -> SignalGraph:
    """Return a graph of many receivers with a box of its queue beside each, for lines that end nearby."""
    if graph.by_app or sum(node.kind == "receiver" for node in graph.nodes.values()) <= FEW_RECEIVERS:
        return graph
    nodes = {key: node for key, node in graph.nodes.items() if node.kind != "queue"}
    edges = []
    for edge in graph.edges:
        node = graph.nodes[edge.target]
        key = f"{edge.target} {edge.source}" if node.kind == "queue" else edge.target
        nodes[key] = node
        edges.append(replace(edge, target=key))
    return replace(graph, nodes=nodes, edges=edges)


def _placed(graph: SignalGraph) -> dict[str, _Placed]:
    nodes = graph.nodes
    boxes = [Box(key, node.column, node.group, _height(node)) for key, node in nodes.items()]
    tops = place(boxes, [(edge.source, edge.target) for edge in graph.edges])
    starts, x = {}, MARGIN
    kinds = {node.column: node.kind for node in nodes.values()}
    gaps = BY_APP if graph.by_app else GAPS
    for column in range(max(kinds, default=-1) + 1):
        starts[column] = x
        x += WIDTHS[kinds.get(column, "app")] + (gaps[column] if column < len(gaps) else 0)
    return {
        key: _Placed(node, starts[node.column], MARGIN + tops[key], WIDTHS[node.kind], _height(node))
        for key, node in nodes.items()
    }


def _height(node: GraphNode) -> int:
    return TWO_LINES if node.marks or node.note else ONE_LINE


def _edge(edge: GraphEdge, placed: dict[str, _Placed]) -> SafeString:
    source, target = placed[edge.source], placed[edge.target]
    if edge.is_cascade:  # from the receiver's left side back to the signal's right one, below the other lines
        start, end = (source.x, source.middle + 7), (target.end, target.middle + 7)
    else:
        start, end = (source.end, source.middle), (target.x, target.middle)
    bend = (start[0] + end[0]) // 2
    path = f"M{start[0]} {start[1]}C{bend} {start[1]} {bend} {end[1]} {end[0]} {end[1]}"
    if edge.is_cascade:
        head = f"M{end[0]} {end[1]}l9 -4v8z"
        return format_html('<path class="cascade" d="{}"/><path class="head" d="{}"/>', path, head)
    tone = "flow" if edge.rate else "still"
    line = format_html('<path class="{}" d="{}"/>', tone, path)
    if not edge.rate:
        return line
    rate, beside = (
        rate_text(edge.rate),
        13 if start[1] < end[1] else -4,
    )  # on the side from which the line does not come
    return format_html('{}<text class="rate" x="{}" y="{}">{}</text>', line, end[0] - 5, end[1] + beside, rate)


def _node(placed: _Placed, marks: Mapping[str, Any], link: Callable[[GraphNode], str] | None) -> SafeString:
    node, x, y = placed.node, placed.x, placed.y
    tone = "dead-end" if node.is_dead_end else "paused" if node.marks else node.kind
    words = ", ".join(str(marks[mark]) for mark in node.marks)
    second = f"{'▲' if node.is_dead_end else '❚❚'} {words}" if words else node.note
    base = y + 17 if second else placed.middle + 4
    note: SafeString | str = ""
    if second:
        shown = second if words else _fitting(second, placed.width, SMALL_CHAR)
        note = format_html('<text class="note" x="{}" y="{}">{}</text>', x + 9, y + 33, shown)
    box = format_html(
        '<g class="{}"><title>{}</title><path d="{}"/><text x="{}" y="{}">{}</text>{}</g>',
        tone, printable(f"{node.name} ({words})" if words else node.name, 300), _outline(placed), x + 9, base,
        _fitting(node.label, placed.width, CHAR), note,
    )  # fmt: skip
    return box if link is None else format_html('<a href="{}" tabindex="-1">{}</a>', link(node), box)


def _outline(placed: _Placed) -> str:
    """Return the path of a box: round for a queue or an app, without corners for a dead end."""
    x, y, width, height = placed.x, placed.y, placed.width, placed.height
    if placed.node.is_dead_end:
        cut, across, down = CORNER, width - 2 * CORNER, height - 2 * CORNER
        return f"M{x + cut} {y}h{across}l{cut} {cut}v{down}l-{cut} {cut}h-{across}l-{cut} -{cut}v-{down}z"
    round_ = {"queue": ONE_LINE // 2, "app": ONE_LINE // 2, "receiver": 6, "signal": 2}[placed.node.kind]
    across, down = width - 2 * round_, height - 2 * round_
    arc = f"a{round_} {round_} 0 0 1"
    return (
        f"M{x + round_} {y}h{across}{arc} {round_} {round_}v{down}{arc} -{round_} {round_}"
        f"h-{across}{arc} -{round_} -{round_}v-{down}{arc} {round_} -{round_}z"
    )


def _fitting(text: str, width: int, char: float) -> str:
    """Return a name that fits a box: of a longer one the beginning and the end."""
    most = int((width - 18) / char)
    shown = printable(text, 300)
    if len(shown) <= most:
        return shown
    tail = most * 3 // 5
    return f"{shown[: most - tail - 1]}…{shown[-tail:]}"
