"""Find the module that made a plain Django signal, by reading the sources of the modules that have it in a variable.

`bridge` names a bridge after that module and variable (decision 0019).
"""

from __future__ import annotations

import ast
import inspect
import sys
from enum import IntEnum
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from django.dispatch import Signal as DjangoSignal

from signalbus.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_names: WeakKeyDictionary[DjangoSignal, str] = WeakKeyDictionary()


class Claim(IntEnum):
    """The claim of a module to have made the signal in one of its variables, by its source; the strongest first."""

    MADE = 0  # saved = Signal()
    CALLED = 1  # saved = a_factory(), or made only if an import fails
    UNKNOWN = 2  # there is no source, or the variable is not in it
    BROUGHT = 3  # imported, or another name for it


def name_of_plain(signal: DjangoSignal) -> str:
    """Return the name of a plain signal: that of the module that made it, whichever modules import it.

    Args:
        signal: the plain signal.

    Returns:
        The dotted name of the module and of its variable; once found, it stays.

    Raises:
        ConfigurationError: no module has it in a variable.
    """
    name = _names.get(signal)
    if name is None:
        name = _names[signal] = ".".join(_origin_of(signal))
    return name


def _origin_of(signal: DjangoSignal) -> tuple[str, str]:
    holders = sorted(_holders(signal), key=_likely)
    if not holders:
        raise ConfigurationError(
            f"{signal!r} stands in no module, so a worker could not tell which signal it is: assign it to a variable "
            "of a module's."
        )
    if len(holders) == 1:
        return holders[0]
    claims: list[Claim] = []
    for module, variable in holders:
        claims.append(claim_of(module, variable))
        if claims[-1] is Claim.MADE:  # no other module can have made it: their sources need not be read
            return module, variable
    return holders[claims.index(min(claims))]


def _holders(signal: DjangoSignal) -> Iterator[tuple[str, str]]:
    for module, namespace in list(sys.modules.items()):
        for variable, value in list(getattr(namespace, "__dict__", {}).items()):
            if value is signal:
                yield module, variable


def _likely(holders: tuple[str, str]) -> tuple[Any, ...]:
    """Return a sort key that puts the module first that most likely made a signal; it wins where no source decides."""
    module, variable = holders
    by_hand = module == "__main__"
    return by_hand, not module.startswith("django."), not module.endswith("signals"), len(module), module, variable


def claim_of(module: str, variable: str) -> Claim:
    """Read in a module's source how one of its variables got its value.

    Args:
        module: the name of a loaded module.
        variable: a variable of it.

    Returns:
        The strongest claim that the source makes.
    """
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, ValueError, SyntaxError):  # none, or not what was loaded any more
        return Claim.UNKNOWN
    found = {Claim.UNKNOWN}
    for node in _statements(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {alias.asname or alias.name for alias in node.names}
            found |= {Claim.BROUGHT} if names & {variable, "*"} else set()
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            values = [value for target in targets for value in _assigned(target, node.value, variable)]
            found |= {_claim_in(value, vars(sys.modules[module])) for value in values}
    if Claim.MADE in found:
        return Claim.CALLED if Claim.BROUGHT in found else Claim.MADE
    return min(found - {Claim.UNKNOWN}, default=Claim.UNKNOWN)


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield the statements that run when a module is loaded, without those in functions and classes."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def _assigned(target: ast.expr, value: ast.expr | None, variable: str) -> Iterator[ast.expr]:
    """Yield the values that assigned to a variable, also through tuples such as ``a, b = Signal(), Signal()``."""
    if isinstance(target, ast.Name):
        if target.id == variable and value is not None:
            yield value
    elif isinstance(target, (ast.Tuple, ast.List)):
        parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
        values = parts if len(parts) == len(target.elts) else [value] * len(target.elts)
        for each, part in zip(target.elts, values, strict=True):
            yield from _assigned(each, part, variable)


def _claim_in(value: ast.expr, namespace: dict[str, Any]) -> Claim:
    if isinstance(value, (ast.Name, ast.Attribute)):
        return Claim.BROUGHT
    if not isinstance(value, ast.Call):
        return Claim.CALLED
    first, *steps = ast.unparse(value.func).split(".")
    found = namespace.get(first)
    for step in steps:
        found = vars(found).get(step) if isinstance(found, (ModuleType, type)) else None
    return Claim.MADE if isinstance(found, type) and issubclass(found, DjangoSignal) else Claim.CALLED
