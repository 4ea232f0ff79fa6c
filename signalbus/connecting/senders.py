"""Resolve the senders of a signal.

A text that names a model becomes the model, and an ordinary object its class; other texts stay texts.

``connect`` and ``send`` call it. Senders that reach no receiver are logged here, once each.
"""

from __future__ import annotations

import logging
import re
import sys
import weakref
from typing import TYPE_CHECKING

from django.apps import apps
from django.db.models import Model
from django.db.models.utils import make_model_tuple

from signalbus.exceptions import ConfigurationError, PayloadError
from signalbus.wire.values.class_names import SENDERS, name_of, unwrapped
from signalbus.wire.values.remedies import name_of_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from signalbus.registration.registry import Receiver

logger: logging.Logger = logging.getLogger("signalbus")

_LABEL = re.compile(r"[^\W\d]\w*\.[^\W\d]\w*")  # as "app.Model"


class Unheard:
    """Log each sender of a signal that reaches no receiver although there are receivers for other senders, once."""

    MOST = 100  # senders; objects made for each request must not fill the memory

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def log_once(self, signal: object, sender: object, receivers: Iterable[Receiver]) -> None:
        """Log that a sender reached no receiver, unless that was logged before.

        Args:
            signal: the signal that was sent.
            sender: its sender.
            receivers: the receivers of the signal.
        """
        if len(self._logged) >= self.MOST or not logger.isEnabledFor(logging.INFO):
            return
        name = _shown(sender)
        if name in self._logged:
            return
        self._logged.add(name)
        listening = ", ".join(f"{receiver.sender} ({receiver.place})" for receiver in receivers)
        logger.info(
            "signalbus: %s from %s reached nobody: its receivers listen to %s. This is said once.",
            signal, name, listening,
        )  # fmt: skip


def _shown(sender: object) -> str:
    try:
        return name_of(sender) or "None"
    except PayloadError:  # an object that has no name
        return f"an object of {type(sender).__qualname__}"


class ObjectSenders:
    """Replace senders that are ordinary objects by their classes, with a warning once for each class."""

    def __init__(self) -> None:
        self._logged: weakref.WeakSet[type] = weakref.WeakSet()

    def of(self, signal: object, sender: object) -> object:
        """Return the sender that a message carries: the class of an ordinary object, and any other sender as it is.

        Args:
            signal: the signal that is sent.
            sender: its sender; a view, a command or a service often sends itself.
        """
        plain = unwrapped(sender)
        if plain is None or isinstance(plain, (str, *SENDERS, Model)):
            return sender
        kind = type(plain)
        if kind not in self._logged:
            self._logged.add(kind)
            logger.warning(
                "signalbus: the sender of %s is an object of %s, which cannot travel. Receivers in workers get its "
                "class as the sender; give sender=type(self) to say so. This is said once for each class.",
                signal, name_of_type(kind),
            )  # fmt: skip
        return kind

    def warn_of_class(self, signal: object, sender: object, receivers: Iterable[Receiver]) -> None:
        """Warn, once for each class, that an instance does not reach the receivers that listen to its class.

        Args:
            signal: the signal that is sent.
            sender: its sender.
            receivers: the receivers of the signal.
        """
        plain = unwrapped(sender)
        kind = type(plain)
        if plain is None or isinstance(plain, (str, *SENDERS)) or kind in self._logged:
            return
        name = name_of(kind)
        listening = [receiver.place for receiver in receivers if receiver.sender == name]
        if listening:
            self._logged.add(kind)
            logger.warning(
                "signalbus: the sender of %s is an instance of %s. As in Django, it reaches receivers without a sender "
                "only, and not %s: give sender=type(instance) to reach those. This is said once for each class.",
                signal, name_of_type(kind), ", ".join(listening),
            )  # fmt: skip


def interned(sender: object) -> object:
    """Return the interned text of a sender: Django compares senders by identity.

    Args:
        sender: the sender as given; one that is not a text is returned as it is.
    """
    return sys.intern(sender) if type(sender) is str else sender


def with_model(sender: object, function: Callable[[object], None], place: str) -> None:
    """Call a function with a sender; if the sender is a text that names a model, call it once the model is loaded.

    Args:
        sender: as it was given to ``connect`` or ``disconnect``.
        function: takes the sender.
        place: the place of the receiver, for Django's check of models that were never loaded.

    Raises:
        ConfigurationError: all models are loaded, and none has that name.
    """
    if not isinstance(sender, str) or not _names_model(sender):
        function(interned(sender))
    elif apps.models_ready:
        function(_model_named(sender))
    else:

        def later(model: type[Model]) -> None:
            function(model)

        later.__qualname__ = place
        apps.lazy_model_operation(later, make_model_tuple(sender))


def _names_model(text: str) -> bool:
    """Return whether a text is of the form ``"app.Model"``, with an installed app or a model in capitals."""
    if _LABEL.fullmatch(text) is None:
        return False
    label, _, name = text.partition(".")
    return name[0].isupper() or (apps.apps_ready and label in apps.app_configs)


def _model_named(text: str) -> type[Model]:
    try:
        return apps.get_model(text)
    except LookupError as error:
        raise ConfigurationError(
            f"sender={text!r} names no model: {error} Correct the name, or give the class itself. (A text that is not "
            "meant to name a model is written without a dot.)"
        ) from error
