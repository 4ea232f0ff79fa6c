"""Write a graph as Mermaid, for a README, a wiki or a merge request: their pages draw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from signalbus.core.printable_text import printable
from signalbus.graph.svg_drawing import MARKS, rate_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from signalbus.graph.signal_graph import GraphEdge, GraphNode, SignalGraph

CHARS: Final = 120  # of a label
SHAPES: Final = {"app": '(["{}"])', "signal": '["{}"]', "receiver": '("{}")', "queue": '[("{}")]'}
DEAD_END: Final = "stroke:#b3261e,stroke-width:2px,stroke-dasharray:6 3"
PAUSED: Final = "stroke:#805000,stroke-width:2px"
PLAIN: Final = frozenset(" ._-/")  # beside letters and digits; Mermaid reads the others by their code


def mermaid_of(graph: SignalGraph) -> str:
    """Return a graph as a flow chart of Mermaid.

    Args:
        graph: the graph.
    """
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: SignalGraph) -> Iterator[str]:
    number_of = {key: f"n{number}" for number, key in enumerate(graph.nodes)}
    yield "flowchart LR"
    groups = dict.fromkeys(node.group for node in graph.nodes.values())
    for number, group in enumerate(groups):
        if group:
            yield f'  subgraph g{number}["{_escaped(group)}"]'
        for key, node in graph.nodes.items():
            if node.group == group:
                yield f"  {'  ' * bool(group)}{number_of[key]}{SHAPES[node.kind].format(_label(node))}"
        if group:
            yield "  end"
    for edge in graph.edges:
        yield f"  {number_of[edge.source]} {_arrow(edge)} {number_of[edge.target]}"
    dead = [number_of[key] for key, node in graph.nodes.items() if node.is_dead_end]
    held = [number_of[key] for key, node in graph.nodes.items() if node.marks == ("paused",)]
    for name, style, keys in (("deadEnd", DEAD_END, dead), ("paused", PAUSED, held)):
        if keys:
            yield f"  classDef {name} {style}"
            yield f"  class {','.join(keys)} {name}"


def _arrow(edge: GraphEdge) -> str:
    if edge.is_cascade:
        return "-.->"
    return f'-->|"{_escaped(rate_text(edge.rate))}"|' if edge.rate else "-->"


def _label(node: GraphNode) -> str:
    marks = ", ".join(MARKS[mark] for mark in node.marks)
    return f"{_escaped(node.name)}{f'<br>{marks}' if marks else ''}"


def _escaped(text: str) -> str:
    """Return a text that Mermaid shows as it is: no character of it ends a label, or is markup."""
    shown = "".join(
        char if (char.isascii() and char.isalnum()) or char in PLAIN else f"#{ord(char)};"
        for char in printable(text, CHARS)
    )
    return shown or " "  # an empty label is no label
