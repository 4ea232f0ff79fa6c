"""``graph``: draw who sends to whom, for a document, a wiki or another program."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from django.core.management.base import CommandError

from signalbus.graph.mermaid_text import mermaid_of
from signalbus.graph.signal_graph import MOST_SIGNALS, SignalGraph, signal_graph
from signalbus.graph.svg_drawing import svg_file
from signalbus.services.actors import command_actor

if TYPE_CHECKING:
    from django.core.management.base import BaseCommand

SCHEMA: Final = 1  # of the object; it changes when a reader would have to


def add(commands: Any) -> None:
    """Declare ``graph``."""
    graph = commands.add_parser("graph", help="draw senders, signals, receivers and queues, with rates and dead ends")
    graph.set_defaults(run=run)
    graph.add_argument("--format", choices=WRITERS, default="mermaid", help="what to print (mermaid)")
    graph.add_argument("--signal", default="", metavar="PART", help="only signals whose name has this part")
    graph.add_argument("--app", default="", help="only signals that this app declares, sends or receives")
    graph.add_argument(
        "--most",
        type=int,
        default=MOST_SIGNALS,
        metavar="N",
        help=f"draw up to N signals one by one, and more of them by app ({MOST_SIGNALS})",
    )
    graph.add_argument(
        "--code-only", action="store_true", help="what the code says, without rates and workers: needs no database"
    )


def run(command: BaseCommand, options: dict[str, Any]) -> None:
    """Print the graph."""
    graph = signal_graph(
        command_actor(), part=options["signal"], app=options["app"], most=options["most"],
        with_rates=not options["code_only"],
    )  # fmt: skip
    if not graph.signals:
        raise CommandError("No signal matches: `manage.py signalbus list` shows all.")
    command.stdout.write(WRITERS[options["format"]](graph), ending="")


def _json(graph: SignalGraph) -> str:
    shown = {
        "schema": SCHEMA, "by_app": graph.by_app, "signals": graph.signals,
        "nodes": [{**asdict(node), "dead_end": node.is_dead_end} for node in graph.nodes.values()],
        "edges": [asdict(edge) for edge in graph.edges],
    }  # fmt: skip
    return f"{json.dumps(shown, indent=2)}\n"


WRITERS: Final = {"mermaid": mermaid_of, "svg": svg_file, "json": _json}
