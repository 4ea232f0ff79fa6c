"""Collect who sends to whom: what this process and the living workers know, with what ends in a minute.

The result has no places: `svg_drawing` and `mermaid_text` draw it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from django.apps import apps

from signalbus.graph.seen_sends import seen_sends
from signalbus.pages.figures import rates_by_receiver
from signalbus.services.actors import VIEW
from signalbus.services.changes.pausing import paused
from signalbus.services.queries.explanation import explain, known_signals
from signalbus.services.queries.live_workers import workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from signalbus.graph.seen_sends import SeenSends
    from signalbus.services.actors import Actor

MOST_SIGNALS: Final = 200  # that are drawn one by one; more are drawn by app
MOST_RECEIVERS: Final = 400
MOST_APPS: Final = 200
NAMED: Final = 3  # senders that a signal's box names

Kind = Literal["app", "signal", "receiver", "queue"]
Mark = Literal["unheard", "unreached", "unconsumed", "paused"]


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A box.

    Args:
        key: its key among the nodes.
        kind: app, signal, receiver or queue.
        name: its whole name.
        column: its column; 0 for who sends.
        label: the part of its name that tells it from its neighbours.
        note: more of it, in names.
        group: the app to which a signal belongs.
        marks: what is wrong: unheard (a signal that no receiver gets), unreached (a receiver that nothing was ever
            delivered to), unconsumed (a queue that no worker consumes, and its receivers), and paused.
    """

    key: str
    kind: Kind
    name: str
    column: int
    label: str
    note: str = ""
    group: str = ""
    marks: tuple[Mark, ...] = ()

    @property
    def is_dead_end(self) -> bool:
        """Whether nothing gets beyond it, or to it."""
        return any(mark != "paused" for mark in self.marks)


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """A line.

    Args:
        source: the key of the node from which messages come.
        target: the key of the node that they reach.
        rate: deliveries that end in a minute; None where they are not counted.
        is_cascade: its source is a receiver that sends the signal.
    """

    source: str
    target: str
    rate: float | None = None
    is_cascade: bool = False


@dataclass(slots=True)
class SignalGraph:
    """Who sends to whom.

    Args:
        nodes: the boxes by key.
        edges: the lines.
        signals: how many signals match.
        by_app: apps are drawn in place of signals and receivers, because there are too many.
        apps: the apps of all signals and receivers, to choose from.
    """

    nodes: dict[str, GraphNode] = field(default_factory=dict)
    edges: list[GraphEdge] = field(default_factory=list)
    signals: int = 0
    by_app: bool = False
    apps: list[str] = field(default_factory=list)

    @property
    def dead_ends(self) -> int:
        """How many boxes are dead ends."""
        return sum(node.is_dead_end for node in self.nodes.values())


@dataclass(frozen=True, slots=True)
class _Reached:
    """A receiver of a signal.

    Args:
        id: its id.
        app: its app.
        queue: its queue; None if only workers know it.
        rate: deliveries that end in a minute; None where they are not counted.
        is_reached: whether a delivery of the signal to it ever ended, or none is counted.
    """

    id: str
    app: str
    queue: str | None
    rate: float | None
    is_reached: bool


@dataclass(slots=True)
class _Flow:
    """A signal with who sends it and who receives it."""

    name: str
    app: str
    senders: list[str]
    inline: int
    receivers: list[_Reached]

    @property
    def sending_apps(self) -> list[str]:
        """The apps of its senders; its own if no sender is known."""
        return sorted({_app_of(sender) for sender in self.senders}) or [self.app]

    @property
    def apps(self) -> set[str]:
        """All apps that it concerns."""
        return {self.app, *self.sending_apps, *(each.app for each in self.receivers)}


@dataclass(slots=True)
class _State:
    """What is true of names now: the queues that are consumed, and what is paused."""

    consumed: set[str]
    pauses: set[tuple[str, str]]

    def marks(self, kind: str, name: str, *marks: Mark) -> tuple[Mark, ...]:
        """Return the marks of a node, with that of a pause."""
        return (*marks, *(["paused"] if (kind, name) in self.pauses else []))  # type: ignore[arg-type]  # it is a Mark


def signal_graph(
    actor: Actor, *, part: str = "", app: str = "", most: int = MOST_SIGNALS, with_rates: bool = True
) -> SignalGraph:
    """Return who sends to whom.

    Args:
        actor: who asks.
        part: only signals whose name has this part; in any case of its letters.
        app: only signals that this app declares, sends or receives.
        most: signals that are drawn one by one; if there are more, the graph is drawn by app.
        with_rates: read the ledger for rates, senders, workers and pauses; else only this process is asked.

    Raises:
        PermissionDenied: the actor must not see deliveries.
    """
    actor.require(VIEW)
    seen = seen_sends() if with_rates else None
    rates = rates_by_receiver() if with_rates else None
    living = [worker.row for worker in workers(actor) if not worker.is_gone] if with_rates else []
    flows = list(_flows(seen, rates, living))
    found = [flow for flow in flows if part.lower() in flow.name.lower() and (not app or app in flow.apps)]
    graph = SignalGraph(signals=len(found), apps=sorted(set().union(*(flow.apps for flow in flows))))
    graph.by_app = len(found) > most or sum(len(flow.receivers) for flow in found) > MOST_RECEIVERS
    state = _State({queue for row in living for queue in row.queues}, set())
    if with_rates:
        held = paused(actor, counts_held=False)
        state.pauses = {(each.kind, each.name) for each in held if each.resumed_at is None}
    else:
        state.consumed = {each.queue for flow in found for each in flow.receivers if each.queue}
    if graph.by_app:
        _add_apps(graph, found)
    else:
        _add_signals(graph, found, state)
        _add_cascades(graph, () if seen is None else seen.cascades)
    _add_queues(graph, state)
    return graph


def _flows(
    seen: SeenSends | None, rates: dict[tuple[str, str], float] | None, living: Iterable[Any]
) -> Iterator[_Flow]:
    """Yield the signals that this process or a living worker knows, by name."""
    elsewhere: defaultdict[str, set[str]] = defaultdict(set)
    for row in living:
        for signal, receivers in row.receivers.items():
            elsewhere[signal].update(receivers)
    known = known_signals()
    for name in sorted({*known, *elsewhere}):
        found = explain(name) if name in known else None
        here = [] if found is None else found.receivers
        senders = {each.sender for each in here if each.sender is not None}
        senders |= set() if seen is None else seen.senders[name]
        receivers = [
            _Reached(each.id, _app_of(each.id, each.place), each.queue, *_reach(rates, name, each.id)) for each in here
        ]
        others = sorted(elsewhere[name] - {each.id for each in here})
        receivers += [_Reached(each, _app_of(each), None, *_reach(rates, name, each)) for each in others]
        yield _Flow(name, _app_of(name), sorted(senders), 0 if found is None else found.inline, receivers)


def _reach(rates: dict[tuple[str, str], float] | None, signal: str, receiver: str) -> tuple[float | None, bool]:
    """Return the rate of a signal to a receiver, and whether it is reached, as `_Reached` has them."""
    return (None, True) if rates is None else (rates.get((signal, receiver), 0.0), (signal, receiver) in rates)


def _app_of(name: str, place: str = "") -> str:
    """Return the app of a name: of a module the label of the app that contains it, else the first part."""
    module = (place or name).partition(" ")[0]
    config = apps.get_containing_app_config(module)
    return config.label if config is not None else name.partition(".")[0]


def _add_signals(graph: SignalGraph, flows: Iterable[_Flow], state: _State) -> None:
    queues: defaultdict[str, set[str]] = defaultdict(set)
    reached: Counter[str] = Counter()
    for flow in flows:
        signal = f"signal:{flow.name}"
        unheard: tuple[Mark, ...] = () if flow.receivers or flow.inline else ("unheard",)
        label = flow.name.partition(".")[2] if flow.name.startswith(f"{flow.app}.") else flow.name
        graph.nodes[signal] = GraphNode(
            signal, "signal", flow.name, 1, label, _senders(flow.senders), flow.app,
            state.marks("signal", flow.name, *unheard),
        )  # fmt: skip
        for app in flow.sending_apps:
            graph.nodes.setdefault(f"app:{app}", GraphNode(f"app:{app}", "app", app, 0, app))
            graph.edges.append(GraphEdge(f"app:{app}", signal))
        for each in flow.receivers:
            queues[each.id].update([each.queue] if each.queue else [])
            reached[each.id] += each.is_reached
            graph.edges.append(GraphEdge(signal, f"receiver:{each.id}", each.rate))
    for name, used in queues.items():
        marks: list[Mark] = [] if reached[name] else ["unreached"]
        if used - state.consumed:
            marks.append("unconsumed")
        label, note = _parts_of(name)
        receiver = f"receiver:{name}"
        graph.nodes[receiver] = GraphNode(
            receiver, "receiver", name, 2, label, note, marks=state.marks("receiver", name, *marks)
        )
        graph.edges += [GraphEdge(receiver, f"queue:{queue}") for queue in sorted(used)]


def _add_cascades(graph: SignalGraph, cascades: Iterable[tuple[str, str]]) -> None:
    for receiver, signal in sorted(cascades):
        pair = f"receiver:{receiver}", f"signal:{signal}"
        if all(key in graph.nodes for key in pair):
            graph.edges.append(GraphEdge(*pair, is_cascade=True))


def _add_apps(graph: SignalGraph, flows: Iterable[_Flow]) -> None:
    """Add apps that send, apps that receive, and the sums of their rates; the busiest if there are too many."""
    sums: Counter[tuple[str, str]] = Counter()
    queues: set[tuple[str, str]] = set()
    for flow in flows:
        for app in flow.sending_apps:
            sums[app, ""] += 0
            for each in flow.receivers:
                sums[app, each.app] += each.rate or 0.0  # type: ignore[assignment]  # a sum of floats
                queues |= {(each.app, each.queue)} if each.queue else set()
    for (source, target), rate in sums.most_common():
        if len(graph.nodes) >= MOST_APPS:
            break
        graph.nodes.setdefault(f"app:{source}", GraphNode(f"app:{source}", "app", source, 0, source))
        if target:
            graph.nodes.setdefault(f"to:{target}", GraphNode(f"to:{target}", "app", target, 1, target))
            graph.edges.append(GraphEdge(f"app:{source}", f"to:{target}", rate))
    graph.edges += [
        GraphEdge(f"to:{app}", f"queue:{name}") for app, name in sorted(queues) if f"to:{app}" in graph.nodes
    ]


def _add_queues(graph: SignalGraph, state: _State) -> None:
    column = 2 if graph.by_app else 3
    for key in dict.fromkeys(edge.target for edge in graph.edges if edge.target.startswith("queue:")):
        name = key.partition(":")[2]
        unconsumed: tuple[Mark, ...] = () if name in state.consumed else ("unconsumed",)
        graph.nodes[key] = GraphNode(key, "queue", name, column, name, marks=state.marks("queue", name, *unconsumed))


def _shown(rate: float | None) -> float | None:
    return None if rate is None else max(0.0, rate)


def _senders(names: list[str]) -> str:
    """Return the senders of a signal without their apps, the first of them."""
    short = sorted({name.rpartition(".")[2] for name in names})
    return ", ".join([*short[:NAMED], *(["…"] if len(short) > NAMED else [])])


def _parts_of(receiver: str) -> tuple[str, str]:
    """Return the function of a receiver's id, and its module with the sender that it listens to."""
    path, bracket, sender = receiver.partition("[")
    module, _, function = path.rpartition(".")
    return function or path, f"{module} {bracket}{sender}".strip()
