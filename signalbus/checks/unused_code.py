"""Find receivers in modules that this process did not import, and signals without a receiver in this process.

For the receivers the sources of the installed apps are read, and nothing is imported; for the signals the registry is
asked. `checks`, the start of a worker and ``status`` call it.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from django.apps import apps

from signalbus import conf
from signalbus.registration.registry import registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.apps import AppConfig

# Modules that are imported by their own tools, or not at all.
_ELSEWHERE = frozenset({"migrations", "tests", "test", "management", "conftest"})
_MARKS = (b"receiver", b".connect(")


def modules_not_imported() -> list[str]:
    """Return the modules of installed apps that connect receivers to our signals, and are not imported, with the line.

    Returns:
        For each its name, and in brackets the file and line of the first receiver, sorted.
    """
    skipped = conf.get().SKIP_APPS
    declaring = {signal.module for signal in registry} | {"signalbus"}
    return sorted(
        f"{module} ({path}:{line})"
        for app in apps.get_app_configs()
        if app.name != "signalbus" and app.name not in skipped and app.label not in skipped
        for module, path in modules_of(app, _ELSEWHERE)
        if module not in sys.modules and (line := _first_receiver(path, module, declaring))
    )


def signals_without_receivers() -> list[str]:
    """Return the names of signals that installed apps declare and that have no receiver in this process, sorted.

    Those with ``open=True`` are not among them: their receivers may be anywhere.
    """
    return sorted(
        name
        for signal in registry
        if not signal.receivers
        and not signal.open
        and signal.presented is signal
        and not signal.is_leftover
        and apps.get_containing_app_config(signal.module) is not None
        and (name := signal.known_name()) is not None
    )


def modules_of(app: AppConfig, skipped: frozenset[str]) -> Iterator[tuple[str, Path]]:
    """Yield the modules of an app, with their files.

    Args:
        app: the app.
        skipped: the names of modules and packages that are left out; those of test modules are as well.
    """
    root = Path(app.path)
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name.isidentifier() and name not in skipped]
        for file in files:
            path = Path(folder, file)
            stem = path.stem
            if path.suffix != ".py" or not stem.isidentifier() or stem in skipped or stem.startswith("test_"):
                continue
            names = [*path.parent.relative_to(root).parts, *([] if stem == "__init__" else [stem])]
            yield ".".join([app.name, *names]), path


def _first_receiver(path: Path, module: str, declaring: set[str]) -> int:
    """Return the line of the first receiver of one of our signals in a file; 0 if there is none."""
    try:
        source = path.read_bytes()
        if not any(mark in source for mark in _MARKS):
            return 0
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):  # an import of it raises the error
        return 0
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    ours = _names_of_ours(tree, package, declaring)
    lines = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and _connects(node, ours)]
    return min(lines, default=0)


def _names_of_ours(tree: ast.AST, package: str, declaring: set[str]) -> set[str]:
    """Return the names in a file that refer to signalbus, to a module that declares signals of ours, or its content."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(each.asname or each.name).partition(".")[0] for each in node.names if each.name in declaring}
        elif isinstance(node, ast.ImportFrom):
            name = absolute_name(node, package)
            found |= {each.asname or each.name for each in node.names if declaring & {name, f"{name}.{each.name}"}}
    return found


def absolute_name(node: ast.ImportFrom, package: str) -> str:
    """Return the module that an import names, seen from a package; nothing if there can be none."""
    try:
        return importlib.util.resolve_name(f"{'.' * node.level}{node.module or ''}", package)
    except ImportError:  # beyond the top
        return ""


def _connects(call: ast.Call, ours: set[str]) -> bool:
    """Return whether a call is ``receiver(…)`` of ours or for a signal of ours, or a signal's ``connect(…)``."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name == "connect":
        return _root(function) in ours
    if name != "receiver":
        return False
    given = call.args[0] if call.args else call
    signals = given.elts if isinstance(given, (ast.List, ast.Tuple, ast.Set)) else [given]
    return _root(function) in ours or any(_root(each) in ours for each in signals)


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
