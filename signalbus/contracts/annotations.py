"""Evaluate the annotations of a class or function, and strip `Annotated`, `NotRequired` and other wrappers from them.

Names that a module imports only under ``if TYPE_CHECKING:`` are imported when an annotation needs them. Modules of
payloads import models that way, because the module of the models imports the signal.

`payload_fields` reads payload classes with it; the system checks read receivers.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import inspect
import sys
import typing
from typing import (
    Annotated,
    Any,
    Final,
    ForwardRef,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Unpack,
    get_args,
    get_origin,
)

_WRAPPERS: Final = frozenset({"Annotated", "Final", "ClassVar", "ReadOnly", "Required", "NotRequired", "InitVar"})


class _Unresolved:
    """The type of `UNRESOLVED`."""

    def __repr__(self) -> str:
        return "an annotation that cannot be evaluated at run time"


# An annotation that cannot be evaluated: it names what does not exist, or not at run time.
UNRESOLVED: Final = _Unresolved()


def annotations_of(described: Any) -> dict[str, Any]:
    """Return the evaluated annotations of a class, with those of its bases, or of a function.

    Args:
        described: the class or function.

    Returns:
        The annotations by name, with their qualifiers (`Annotated`, `NotRequired`); `UNRESOLVED` for each that cannot
        be evaluated.
    """
    try:
        return typing.get_type_hints(described, include_extras=True)
    except Exception:  # noqa: BLE001 - the project's own expressions are evaluated
        return _one_by_one(described)


def _one_by_one(described: Any) -> dict[str, Any]:
    """Evaluate each annotation for itself: one that fails must not hide the rest."""
    found: dict[str, Any] = {}
    for owner in reversed(described.__mro__) if isinstance(described, type) else [inspect.unwrap(described)]:
        names = _Names(owner)
        for name, annotation in inspect.get_annotations(owner).items():
            found[name] = _evaluated(annotation, names)
    return found


class _Names(dict[str, Any]):
    """The names of an annotation that its module does not hold: those of its class, and imports for type checkers.

    Args:
        owner: the class or function with the annotation.
    """

    def __init__(self, owner: Any) -> None:
        super().__init__(vars(owner) if isinstance(owner, type) else {})
        self.module = owner.__module__
        self.held: dict[str, Any] = {**vars(sys.modules.get(self.module, object))}
        self._imports: dict[str, tuple[str, str]] | None = None

    def __missing__(self, name: str) -> Any:
        """Import a name as the module does for type checkers."""
        if name in self.held or hasattr(builtins, name):
            raise KeyError(name)
        if self._imports is None:
            self._imports = _imports_of(self.module)
        module, attribute = self._imports[name]
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found


def _imports_of(module: str) -> dict[str, tuple[str, str]]:
    """Return the names that the imports of a module bind, with the module and the attribute that each stands for."""
    found: dict[str, tuple[str, str]] = {}
    loaded = sys.modules[module]
    package = module if hasattr(loaded, "__path__") else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(inspect.getsource(loaded))):
        if isinstance(node, ast.Import):
            found.update((each.asname, (each.name, "")) for each in node.names if each.asname)
            found.update((root, (root, "")) for each in node.names if (root := each.name.partition(".")[0]))
        elif isinstance(node, ast.ImportFrom):
            named = f"{'.' * node.level}{node.module or ''}"
            source = importlib.util.resolve_name(named, package) if node.level else named
            found.update((each.asname or each.name, (source, each.name)) for each in node.names)
    return found


def _evaluated(annotation: Any, names: _Names) -> Any:
    if isinstance(annotation, ForwardRef):
        annotation = annotation.__forward_arg__
    if annotation is None:
        return type(None)
    try:
        while isinstance(annotation, str):  # in quotes, in a module whose annotations are texts, it is one twice
            # As typing.get_type_hints() does, with the names of the module that wrote the annotation.
            annotation = eval(annotation, names.held, names)  # noqa: S307
    except Exception:  # noqa: BLE001 - as above
        return UNRESOLVED
    return annotation


def plain_type(annotation: Any) -> Any:
    """Return an annotation without what is not a type: the metadata of `Annotated`, `Required`, `NewType`, an alias.

    Args:
        annotation: an evaluated annotation.
    """
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = annotation.__origin__
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__") and type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif origin is not None and getattr(origin, "_name", None) in _WRAPPERS:
            (annotation, *_) = get_args(annotation)
        elif isinstance(annotation, TypeVar):
            annotation = annotation.__bound__ or Any
        elif annotation is None:
            return type(None)
        else:
            return annotation


def qualifiers_of(annotation: Any) -> set[str]:
    """Return which of "required" and "not required" an annotation of a TypedDict says; none of them if neither."""
    found = set()
    while (origin := get_origin(annotation)) is not None and (
        origin is Annotated or getattr(origin, "_name", None) in _WRAPPERS
    ):
        if origin is Required:
            found.add("required")
        elif origin is NotRequired:
            found.add("not required")
        annotation = annotation.__origin__ if origin is Annotated else get_args(annotation)[0]
    return found


def is_unpacked(annotation: Any) -> bool:
    """Return whether an argument of a tuple stands for any number of elements: ``*tuple[str, ...]``, ``Unpack[…]``."""
    return getattr(annotation, "__unpacked__", False) or get_origin(annotation) is Unpack


def annotation_text(annotation: Any) -> str:
    """Return an annotation as a person would write it."""
    annotation = plain_type(annotation)
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return "None" if annotation is type(None) else annotation.__qualname__
    return repr(annotation).replace("typing.", "").replace("NoneType", "None")
