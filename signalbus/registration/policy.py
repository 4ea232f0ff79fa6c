"""The options of a receiver: what `Signal.connect` and `receiver` take beside Django's, with their defaults and checks.

An option is a key of `ConnectOptions`, for type checkers, and a field of `Policy` of the same name with documentation,
default and check. Signatures, docstrings and the texts of errors follow from these.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypedDict, TypeVar

from signalbus.exceptions import ConfigurationError
from signalbus.registration.registry import MAX_ID, MAX_QUEUE, is_name
from signalbus.retry import Retry

F = TypeVar("F", bound=Callable[..., Any])


class ConnectOptions(TypedDict, total=False):
    """The options as they are given; `Policy` says what they mean."""

    retry: Retry | None
    queue: str | None
    inline: bool
    atomic: bool | None
    on_missing: str
    timeout: float | None
    select_related: Mapping[str, Iterable[str]] | None
    was: Iterable[str]


class ReceiverOptions(ConnectOptions, total=False):
    """The options of `receiver`: those of Django's own ``connect``, and ours."""

    sender: object
    weak: bool
    dispatch_uid: Any


def _retry(retry: object) -> Retry | None:
    if retry is None or isinstance(retry, Retry):
        return retry
    most = retry if type(retry) is int else 5
    raise ConfigurationError(f"retry={retry!r}: give a signalbus.Retry, as in retry=Retry(max_attempts={most}).")


def _queue(queue: object) -> str | None:
    if queue is None or is_name(queue, MAX_QUEUE):
        return queue
    raise ConfigurationError(f"queue={queue!r}: a queue's name is a text of up to {MAX_QUEUE} printable characters.")


def _atomic(atomic: object) -> bool | None:
    if atomic is None or isinstance(atomic, bool):
        return atomic
    raise ConfigurationError(f"atomic={atomic!r}: say True or False, or None for the project's default.")


def _on_missing(on_missing: object) -> str:
    if isinstance(on_missing, str) and on_missing in {"skip", "fail", "snapshot"}:
        return on_missing
    raise ConfigurationError(f'on_missing={on_missing!r}: say "skip", "fail" or "snapshot".')


def _timeout(timeout: object) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and 0 < timeout < math.inf:
        return timeout
    raise ConfigurationError(f"timeout={timeout!r}: a timeout is a number of seconds above 0, or None.")


def _relations(select_related: object) -> Mapping[str, tuple[str, ...]]:
    """Check the relations to load; whether a model has them is known only when its rows are loaded."""
    wrong = ConfigurationError(
        f"select_related={select_related!r}: give payload keys and the relations to fetch along with their rows, as in "
        'select_related={"instance": ("cohort__academy",)}.'
    )
    if select_related is None:
        return {}
    if not isinstance(select_related, Mapping):
        raise wrong
    relations: dict[str, tuple[str, ...]] = {}
    for key, names in select_related.items():
        if not isinstance(names, Iterable):
            raise wrong
        relations[key] = (names,) if isinstance(names, str) else tuple(names)
    if not all(is_name(text, MAX_ID) for texts in [tuple(relations), *relations.values()] for text in texts):
        raise wrong
    return relations


def _former_ids(was: object) -> tuple[str, ...]:
    ids = (was,) if isinstance(was, str) else tuple(was) if isinstance(was, Iterable) else (was,)
    if not all(is_name(id_, MAX_ID) for id_ in ids):
        raise ConfigurationError(
            f'was={was!r}: give the ids that the receiver had, as in was=("admissions.old_name",).'
        )
    return ids


def _option(default: object, check: Callable[[Any], object]) -> dict[str, Any]:
    """Say of a field of `Policy` how its option is read.

    Args:
        default: what holds if it is not given.
        check: returns the value as the policy keeps it, or raises a ConfigurationError.
    """
    return {"default": default, "check": check}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The options with which a receiver was connected.

    Args:
        retry: how often and how long apart to try; ``SIGNALBUS["RETRY"]`` if not given.
        queue: the Celery queue to deliver through; ``SIGNALBUS["QUEUE"]`` if not given.
        inline: run it in the sender's process, as Django would.
        atomic: run it in a transaction, together with its receipt; ``SIGNALBUS["ATOMIC"]`` if not given.
        on_missing: "skip" or "fail" when a row of the message is gone; "snapshot": run with its values as they were
            when the signal was sent.
        timeout: seconds for one run; ``SIGNALBUS["TIMEOUT"]`` if not given.
        select_related: relations to fetch along, as in ``{"instance": ("cohort__academy",)}``.
        was: ids it had before it was renamed.
    """

    retry: Retry | None = field(metadata=_option(None, _retry))
    queue: str | None = field(metadata=_option(None, _queue))
    inline: bool = field(metadata=_option(False, bool))
    atomic: bool | None = field(metadata=_option(None, _atomic))
    on_missing: str = field(metadata=_option("skip", _on_missing))
    timeout: float | None = field(metadata=_option(None, _timeout))
    select_related: Mapping[str, tuple[str, ...]] = field(metadata=_option(None, _relations))
    was: tuple[str, ...] = field(metadata=_option((), _former_ids))


# What Django's own connect() takes beside the receiver, and what ours takes.
DJANGO_OPTIONS: Final = ("sender", "weak", "dispatch_uid")
_OPTIONS: Final = [(each.name, each.metadata["default"], each.metadata["check"]) for each in fields(Policy)]
CONNECT_OPTIONS: Final = (*DJANGO_OPTIONS, *(name for name, _, _ in _OPTIONS))


def policy_from(options: Mapping[str, Any]) -> Policy:
    """Check what is said of a receiver.

    Args:
        options: those of `ConnectOptions` that are given.

    Raises:
        ConfigurationError: an option with a value that means nothing.
    """
    return Policy(**{name: check(options.get(name, default)) for name, default, check in _OPTIONS})


def shows_options(function: F) -> F:
    """Show the options of a receiver in the signature and the docstring of a function that takes them as ``**options``.

    Args:
        function: its docstring has an entry ``options: …`` of one line, in whose place those of `Policy` are shown.
    """
    signature = inspect.signature(function)
    named = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=each.metadata["default"],
            annotation=ConnectOptions.__annotations__[each.name].__forward_arg__,
        )
        for each in fields(Policy)
    ]
    function.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]  # PEP 362
    if function.__doc__ is not None and Policy.__doc__ is not None:  # as without -OO
        # Without the indentation, which Python takes away by itself from 3.13 on.
        head, _, rest = inspect.cleandoc(function.__doc__).partition("    options: ")
        documented = inspect.cleandoc(Policy.__doc__).partition("Args:\n")[2]
        function.__doc__ = "\n".join([head + documented, rest.partition("\n")[2]])
    return function
