"""Find receivers whose ``sender=`` never sends their signal, as if the wrong class was given.

Such a receiver is silent: nothing is sent, so nothing fails. The check reads the project's sources for the calls of
``send()`` and its like, and imports nothing. It reports a receiver only if all senders of its signal are known, and its
own is not among them.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from django.apps import apps

from signalbus.checks.unused_code import absolute_name, modules_of
from signalbus.core.own_code import own_modules
from signalbus.exceptions import PayloadError
from signalbus.registration.registry import registry
from signalbus.wire.values.class_names import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from signalbus.registration.registry import Receiver

# What sends, with the place of the sender among the arguments.
_SENDS: Final = {"send": 0, "send_robust": 0, "asend": 0, "asend_robust": 0, "send_many": 0} | {
    "send_later": 1,
    "asend_later": 1,
}
_MARK: Final = re.compile(rb"\.a?send(?:_robust|_later|_many)?\b")
_TESTS: Final = frozenset({"tests", "test", "conftest"})
_UNKNOWN: Final = object()
_SHOWN: Final = 5  # senders


@dataclass(frozen=True, slots=True, order=True)
class SendPlace:
    """A call that sends a signal.

    Args:
        place: its file and line.
        about: the first line of the docstring of the function around it.
    """

    place: str
    about: str


@dataclass(slots=True)
class _Sends:
    """The senders of one signal.

    Args:
        senders: their names, with the files and lines.
        places: all calls.
        certain: there are no others, as far as the sources tell.
    """

    senders: dict[str | None, str] = field(default_factory=dict)
    places: list[SendPlace] = field(default_factory=list)
    certain: bool = True


def receivers_without_sends() -> list[str]:
    """Return the receivers in workers whose sender never sends their signal, with the senders that do.

    Returns:
        For each a sentence without its end, sorted.
    """
    listening = [
        (signal, entry)
        for signal in registry
        if not signal.open and signal.presented is signal and not signal.is_leftover
        for entry in signal.entries()
        if entry.sender is not None
    ]
    if not listening:
        return []
    sends = _sends_of({id(signal) for signal, _ in listening})
    return sorted(
        _in_words(signal, entry, of_signal)
        for signal, entry in listening
        if (of_signal := sends[id(signal)]).certain and of_signal.senders and entry.sender not in of_signal.senders
    )


def places_of_sends(signals: Iterable[Any]) -> dict[int, list[SendPlace]]:
    """Return the calls that send signals, by the ``id()`` of each signal.

    Args:
        signals: the signals.
    """
    return {key: sends.places for key, sends in _sends_of({id(signal) for signal in signals}).items()}


def _sends_of(signals: set[int]) -> defaultdict[int, _Sends]:
    sends: defaultdict[int, _Sends] = defaultdict(_Sends)
    for module, path in _sources():
        _read(module, path, signals, sends)
    return sends


def _in_words(signal: Any, entry: Receiver, sends: _Sends) -> str:
    senders = [f"{name} ({place})" for name, place in sorted(sends.senders.items(), key=str)]
    if len(senders) > _SHOWN:
        senders[_SHOWN:] = [f"{len(senders) - _SHOWN} others"]
    return (
        f"{entry.place} listens to {entry.sender} as the sender of {signal.known_name()}, which is sent from "
        f"{', '.join(senders)} only"
    )


def _sources() -> Iterator[tuple[str, Path]]:
    """Yield the modules to read, with their files: those of the apps, and the project's other imported modules."""
    seen = set()
    for app in apps.get_app_configs():
        if app.name != "signalbus":
            for module, path in modules_of(app, _TESTS):
                seen.add(str(path))
                yield module, path
    for file, module in own_modules().items():
        parts = module.split(".")
        if file not in seen and _TESTS.isdisjoint(parts) and not parts[-1].startswith("test_"):
            yield module, Path(file)


def _read(module: str, path: Path, signals: set[int], sends: defaultdict[int, _Sends]) -> None:
    """Record the senders in a file's calls of ``send()``."""
    try:
        source = path.read_bytes()
        if _MARK.search(source) is None:
            return
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):  # an import of it raises the error
        return
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = {**vars(sys.modules.get(module, object)), **_imported(tree, package)}
    _Reader(str(path), names, signals, sends).visit(tree)


def _imported(tree: ast.AST, package: str) -> dict[str, Any]:
    """Return the names that a file's imports bind, with their objects if the modules are loaded already."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                name = each.name if each.asname else each.name.partition(".")[0]
                found[each.asname or name] = sys.modules.get(name, _UNKNOWN)
        elif isinstance(node, ast.ImportFrom):
            name = absolute_name(node, package)
            for each in node.names:
                held = inspect.getattr_static(sys.modules.get(name, object), each.name, _UNKNOWN)
                found[each.asname or each.name] = sys.modules.get(f"{name}.{each.name}", held)
    return found


class _Reader(ast.NodeVisitor):
    """Record the calls of ``send()`` in a file, and the signals that other code gets hold of.

    Args:
        path: of the file.
        names: the objects that its names refer to.
        signals: the ids of the signals that are looked for.
        sends: the senders of each signal, to be added to.
    """

    def __init__(self, path: str, names: dict[str, Any], signals: set[int], sends: defaultdict[int, _Sends]) -> None:
        self._path = path
        self._names = names
        self._signals = signals
        self._sends = sends
        self._classes: list[str] = []
        self._about = ""

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """Track the enclosing class, for calls whose sender is ``self`` or ``cls``."""
        self._classes.append(node.name)
        self.generic_visit(node)
        self._classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Track the docstring of the enclosing function."""
        former, self._about = self._about, (ast.get_docstring(node) or "").partition("\n")[0]
        self.generic_visit(node)
        self._about = former

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        """Track it alike."""
        self.visit_FunctionDef(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Record a call of ``send()``; ignore the signal that is passed to ``receiver()``."""
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in _SENDS and self._is_signal(function.value):
            self._note(node, self._sends[id(self._resolve(function.value))], _SENDS[function.attr])
            arguments = [*node.args, *(each.value for each in node.keywords)]
        elif (function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")) == "receiver":
            arguments = [function, *node.args[1:], *(each.value for each in node.keywords)]
        else:
            arguments = [function, *node.args, *(each.value for each in node.keywords)]
        for argument in arguments:
            self.visit(argument)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Ignore attributes such as ``connect``; a ``signal.send`` that is not called here has unknown senders."""
        if self._is_signal(node):
            self._let_go(node)
        elif not self._is_signal(node.value):
            self.generic_visit(node)
        elif node.attr in _SENDS:
            self._let_go(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        """Mark the senders of a signal as unknown if it is passed to other code, or gets another name."""
        if isinstance(node.ctx, ast.Load) and self._is_signal(node):
            self._let_go(node)

    def _let_go(self, node: ast.AST) -> None:
        self._sends[id(self._resolve(node))].certain = False

    def _note(self, call: ast.Call, sends: _Sends, place: int) -> None:
        sends.places.append(SendPlace(f"{self._path}:{call.lineno}", self._about))
        names = self._senders(call, place)
        if names is None:
            sends.certain = False
            return
        for name in names:
            sends.senders.setdefault(name, f"{self._path}:{call.lineno}")

    def _senders(self, call: ast.Call, place: int) -> set[str | None] | None:
        """Return the names of the senders of a call; None if they are not known."""
        given = [each.value for each in call.keywords if each.arg == "sender"]
        if not given and not any(isinstance(each, ast.Starred) for each in call.args):
            given = call.args[place : place + 1]
        if not given:
            return None
        sender = given[0]
        if isinstance(sender, ast.Constant) and isinstance(sender.value, (str, type(None))):
            return {sender.value}
        if ast.unparse(sender) in {"self", "cls", "self.__class__", "type(self)"}:
            found = self._named(".".join(self._classes))
            return _names_of_classes(found) if isinstance(found, type) else None
        try:
            return {name_of(self._resolve(sender))}
        except PayloadError:  # nothing that sends, as `_UNKNOWN`
            return None

    def _is_signal(self, node: ast.AST) -> bool:
        return id(self._resolve(node)) in self._signals

    def _resolve(self, node: ast.AST) -> Any:
        """Return the object that a name, or an attribute of a module or class, refers to."""
        if isinstance(node, (ast.Name, ast.Attribute)):
            return self._named(ast.unparse(node))
        return _UNKNOWN

    def _named(self, dotted: str) -> Any:
        first, *rest = dotted.split(".")
        found = self._names.get(first, _UNKNOWN)
        for name in rest:
            if not isinstance(found, (ModuleType, type)):
                return _UNKNOWN
            found = inspect.getattr_static(found, name, _UNKNOWN)
        return found


def _names_of_classes(kind: type) -> set[str | None]:
    """Return the names of a class and of all its subclasses."""
    names = {name_of(kind)}
    subclasses: list[type] = kind.__subclasses__()
    for subclass in subclasses:
        names |= _names_of_classes(subclass)
    return names
