"""A drawn graph is well-formed SVG and Mermaid, whatever its names are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from hypothesis import given, strategies

import signalbus
from signalbus.graph import svg_drawing
from signalbus.graph.mermaid_text import mermaid_of
from signalbus.graph.signal_graph import GraphEdge, GraphNode, SignalGraph
from signalbus.graph.svg_drawing import rate_text, svg_file, svg_of

if TYPE_CHECKING:
    from signalbus.graph.signal_graph import Mark

NAMES = strategies.text(max_size=80) | strategies.sampled_from(
    ['"] --> x', "<script>alert(1)</script>", "end", 'a"onload="x', "]]>", "%%{init}%%", "#quot;", "x" * 500]
)
SVG = "{http://www.w3.org/2000/svg}"
# The statements that we write, in the words of Mermaid's grammar of flow charts.
STATEMENT = re.compile(
    r"""flowchart\ LR | \s*subgraph\ g\d+\["[^"\n]+"\] | \s*end
    | \s*n\d+(\(\["[^"\n]+"\]\) | \["[^"\n]+"\] | \("[^"\n]+"\) | \[\("[^"\n]+"\)\])
    | \s*n\d+\ (-->(\|"[^"\n]+"\|)? | -\.->)\ n\d+
    | \s*classDef\ \w+\ [\w:#,\- ]+ | \s*class\ n\d+(,n\d+)*\ \w+""",
    re.VERBOSE,
)


def graph_of(name: str, *marks: Mark, rate: float | None = 12.0) -> SignalGraph:
    """Return a graph of a sender, a signal, a receiver and a queue with one name."""
    nodes = [
        GraphNode("app:a", "app", name, 0, name),
        GraphNode("signal:a", "signal", name, 1, name, name, name),
        GraphNode("receiver:a", "receiver", name, 2, name, name, marks=marks),
        GraphNode("queue:a", "queue", name, 3, name),
    ]
    edges = [
        GraphEdge("app:a", "signal:a"), GraphEdge("signal:a", "receiver:a", rate), GraphEdge("receiver:a", "queue:a"),
        GraphEdge("receiver:a", "signal:a", is_cascade=True),
    ]  # fmt: skip
    return SignalGraph({node.key: node for node in nodes}, edges, 1)


@given(NAMES)
def test_any_name_gives_well_formed_svg(name: str):
    """A name is text: it closes no element and adds none, in a file and on a page with links."""
    graph = graph_of(name, "unconsumed")
    for text in (
        svg_file(graph),
        svg_of(graph, title="Graph", description="", link=lambda node: f"/?{urlencode({'q': node.name})}"),
    ):
        root = ET.fromstring(text)
        assert root.tag == f"{SVG}svg"
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert tags <= {"svg", "style", "title", "desc", "g", "path", "text", "a"}
        assert {key for element in root.iter() for key in element.attrib if key.startswith("on")} == set()


@given(NAMES)
def test_any_name_gives_statements_of_mermaid(name: str):
    """A name ends no label, opens no statement and no markup."""
    for line in mermaid_of(graph_of(name, "unreached", "paused")).splitlines():
        assert STATEMENT.fullmatch(line), line
        assert "<" not in line.replace("<br>", "")


def test_a_dead_end_differs_by_words_and_outline_too():
    """Without colours, a dead end has an outline without corners, a sign and words."""
    dead = svg_of(graph_of("crm.sync", "unconsumed"), title="", description="")
    sound = svg_of(graph_of("crm.sync"), title="", description="")

    def receiver(text: str, tone: str) -> str:
        (found,) = re.findall(rf'<g class="{tone}">.*?</g>', text)
        return str(found)

    assert "▲ no worker" in receiver(dead, "dead-end")
    assert re.search(r'<path d="[^"a]*"', receiver(dead, "dead-end"))  # no arc
    assert re.search(r'<path d="[^"]*a6 6[^"]*"', receiver(sound, "receiver"))
    assert "❚❚ paused" in svg_of(graph_of("crm.sync", "paused"), title="", description="")


def test_rates_are_short():
    """A rate below ten has a digit after the point; a smaller one than a tenth is not shown as none."""
    assert [rate_text(rate) for rate in (None, 0.0, 0.01, 2.25, 12.4, 1234.0)] == [
        "", "", "0.1/min", "2.2/min", "12/min", "1234/min",
    ]  # fmt: skip


def test_a_drawing_is_as_wide_as_its_columns():
    """Names longer than their box are cut in the middle; the whole name is the title of the box."""
    text = svg_of(graph_of("marketing.receivers.a_very_long_name_of_a_receiver"), title="", description="")

    assert 'width="984"' in text
    assert "<title>marketing.receivers.a_very_long_name_of_a_receiver</title>" in text
    assert "…" in text


def test_a_file_has_the_colours_of_the_web_app():
    """Each is in the app's style sheet, under the same name, for a light and a dark page."""
    sheet = (Path(signalbus.__file__).parent / "web" / "static" / "signalbus_web" / "style.css").read_text()
    found = {name: pair for name, *pair in re.findall(r"--([a-z-]+): light-dark\((#\w+), (#\w+)\)", sheet)}
    assert {name: [_in_six_digits(each) for each in found[name]] for name in svg_drawing.COLOURS} == {
        name: list(pair) for name, pair in svg_drawing.COLOURS.items()
    }


def _in_six_digits(colour: str) -> str:
    return colour if len(colour) == len("#ffffff") else f"#{''.join(2 * digit for digit in colour[1:])}"
