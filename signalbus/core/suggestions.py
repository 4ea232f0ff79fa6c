"""Refuse an option that does not exist, and suggest what was meant: a similar name, or another library's name for it.

`Signal()`, ``connect``, ``receiver``, `Retry` and the settings call it with their options.
"""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

F = TypeVar("F", bound="Callable[..., Any]")

SIGNAL_OPTIONS = (
    "name", "durable", "was", "open", "ordered_by", "use_caching", "unique", "debounce", "max_wait",
    "payload", "version",
)  # of Signal()  # fmt: skip

_ATTEMPTS = "retry=Retry(max_attempts={value!r})"
_DELAY = "retry=Retry(base_delay={value!r})"
_AT_SIGNAL = "Signal({option}={value!r}), where the signal is declared"
AT_RECEIVER = "@receiver(…, {option}={value!r}), where a receiver is connected"

# What an option is called elsewhere (in Celery, in Django, in the setting of another place): what to write here.
RECEIVER_ALIASES = {
    **dict.fromkeys(("retries", "max_retries", "max_attempts", "attempts", "tries"), _ATTEMPTS),
    **dict.fromkeys(("delay", "base_delay", "backoff", "retry_backoff", "countdown", "default_retry_delay"), _DELAY),
    **dict.fromkeys(("max_delay", "retry_backoff_max"), "retry=Retry(max_delay={value!r})"),
    **dict.fromkeys(("jitter", "retry_jitter"), "retry=Retry(jitter={value!r})"),
    **dict.fromkeys(("time_limit", "soft_time_limit", "ttl"), "timeout={value!r}"),
    **dict.fromkeys(("uid", "id", "name"), "dispatch_uid={value!r}"),
    **dict.fromkeys(("routing_key", "exchange", "queue_name"), "queue={value!r}"),
    **dict.fromkeys(("sync", "local"), "inline={value!r}"),
    **dict.fromkeys(("transaction", "use_transaction"), "atomic={value!r}"),
    **dict.fromkeys(("durable", "ordered_by", "unique", "debounce", "max_wait", "open"), _AT_SIGNAL),
}
SIGNAL_ALIASES = {
    "providing_args": "nothing in its place: Django has dropped it, and a payload needs no declaration",
    "debounced": "debounce={value!r}",
    **dict.fromkeys(("ordering_key", "order_by", "ordering"), "ordered_by={value!r}"),
    **dict.fromkeys(("dedup", "deduplicate", "once"), "unique={value!r}"),
    **dict.fromkeys(("delay", "countdown", "eta"), "signal.send_later({value!r}, sender=…)"),
    **dict.fromkeys(("retries", "max_retries", "max_attempts"), f"@receiver(…, {_ATTEMPTS})"),
}
RETRY_ALIASES = {
    **dict.fromkeys(("retries", "max_retries", "attempts", "tries", "times"), "max_attempts={value!r}"),
    **dict.fromkeys(
        ("delay", "backoff", "countdown", "default_retry_delay", "retry_backoff", "initial_delay"),
        "base_delay={value!r}",
    ),
    **dict.fromkeys(("backoff_max", "retry_backoff_max", "max_backoff"), "max_delay={value!r}"),
    "retry_jitter": "jitter={value!r}",
}


def takes_no_more(function: F) -> F:
    """Remove the ``**unknown`` from a function's signature as `inspect` and the documentation show it.

    Args:
        function: takes ``**unknown: Never``, in order to say what was probably meant.
    """
    signature = inspect.signature(function)
    named = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    function.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]  # as PEP 362 has it
    return function


def reject_unknown(
    what: str, given: Mapping[str, object], known: Collection[str], aliases: Mapping[str, str] | None = None
) -> None:
    """Refuse keywords that a callable does not take.

    Args:
        what: the callable, as ``Signal.connect()``.
        given: the keywords, with their values.
        known: the keywords that it takes.
        aliases: for other names what to write instead, with a place for ``{value}``.

    Raises:
        TypeError: there is one; with what was probably meant.
    """
    for option, value in given.items():
        if option not in known:
            hint = did_you_mean(option, value, known, aliases or {})
            raise TypeError(f"{what} got an unexpected keyword argument {option!r}: {hint}")


def did_you_mean(option: str, value: object, known: Iterable[str], aliases: Mapping[str, str]) -> str:
    """Return a hint at what was probably meant by an option that does not exist.

    Args:
        option: its name.
        value: its value.
        known: the names that exist.
        aliases: for other names what to write instead.
    """
    if option in aliases:
        return f"did you mean {aliases[option].format(option=option, value=value)}?"
    known = sorted(known)
    close = difflib.get_close_matches(option.lower(), [*known, *aliases], n=1)
    if not close:
        return f"it takes {', '.join(known)}."
    meant = aliases.get(close[0], f"{close[0]}={{value!r}}").format(option=close[0], value=value)
    return f"did you mean {meant}?"
