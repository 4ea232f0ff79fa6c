"""Find a signal's name: the name that it was given, or that of its app and variable.

`Named` is a base class of `DeclaredSignal`.
"""

from __future__ import annotations

import inspect
import sys
from typing import Any

from django.apps import apps

from signalbus.exceptions import ConfigurationError
from signalbus.registration.registry import MAX_NAME, app_label_of, is_name, registry, variable_of


class Named:
    """A base class with a stable name, by which other processes find the signal.

    Args:
        name: the name; if None, it is found from the module and variable that hold the signal.
        was: names that it had before.

    Raises:
        ConfigurationError: a name that is not a non-empty text.
    """

    def _settle(self, name: str | None, was: tuple[str, ...]) -> None:
        if not all(is_name(each, MAX_NAME) for each in (name, *was) if each is not None):
            raise ConfigurationError(
                f"A signal's name is a text such as 'admissions.cohort_saved', printable and of at most {MAX_NAME} "
                f"characters, not {name!r} (was={was!r})."
            )
        self.was: tuple[str, ...] = was
        self._name = name
        self._attribute: str | None = None
        self._checked_at = -1  # how many signals there were when this one had no rival
        frame = sys._getframe(2)  # noqa: SLF001 - the documented way to the caller's module (PEP 667)
        while frame.f_back and frame.f_code.co_name == "__init__" and frame.f_locals.get("self") is self:
            frame = frame.f_back  # a subclass's __init__ is not the place where the signal is declared
        self.module: str = frame.f_globals.get("__name__", "")
        self.site: str = f"{self.module}:{frame.f_lineno}"
        self.place: str = self.site
        if frame.f_back and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            # A function makes many signals at one line; its callers tell them apart.
            self.site += f", called at {frame.f_back.f_globals.get('__name__', '')}:{frame.f_back.f_lineno}"
        self._at_top = frame.f_code.co_name == "<module>"
        registry.add(self)

    def __set_name__(self, owner: type, name: str) -> None:
        if self._attribute is None and variable_of(self.module, self) is None:  # else it is another name for it
            self.module = owner.__module__
            self._attribute = f"{owner.__qualname__}.{name}"

    def __repr__(self) -> str:
        return f"<Signal {self.known_name() or self.place}>"

    @property
    def name(self) -> str:
        """The stable name, which messages carry.

        Raises:
            ConfigurationError: no variable holds the signal, or two signals share the name.
        """
        if self._name is not None and self._checked_at == registry.size:
            return self._name
        size = registry.size
        name = self.known_name()
        if name is None:
            app_label_of(self.module)  # raises an error if apps are not loaded yet
            raise ConfigurationError(
                f"The signal made at {self.place} has no name: assign it to a variable of a module, or give it one, as "
                'in Signal("admissions.cohort_saved"). A worker finds a signal by its name.'
            )
        rival = registry.rival(self, name)
        if rival is not None:
            raise ConfigurationError(str(rival))
        self._checked_at = size
        return name

    def known_name(self) -> str | None:
        """Return the name, or None while there is none; do not look for other signals of that name."""
        if self._name is None and apps.apps_ready:
            variable = self._attribute or variable_of(self.module, self)
            if variable is not None and "<locals>" not in variable:
                self._name = f"{app_label_of(self.module) or self.module}.{variable}"
                registry.renamed()
        return self._name

    @property
    def is_leftover(self) -> bool:
        """Whether its module has been loaded again since, and now holds another signal in its place."""
        if self._attribute is None:
            return self._at_top and variable_of(self.module, self) is None
        found: Any = sys.modules.get(self.module)
        for step in self._attribute.split("."):
            found = getattr(found, step, None)
        return found is not self and "<locals>" not in self._attribute
