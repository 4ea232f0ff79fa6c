"""Decide the delay before the next attempt of a delivery, or that there is none: a pure function of policy and error.

`receiving/invoking/runner` and `receiving/settling/lost_processes` ask it; `receiving/settling` records what follows.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from signalbus.core.suggestions import RETRY_ALIASES, reject_unknown
from signalbus.exceptions import ConfigurationError, Reject, RetryLater

LONGEST = 366 * 24 * 3600.0  # seconds: a receiver's delay must still give a date that a database can store


def _is_seconds(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LONGEST


@dataclass(frozen=True, slots=True)
class Retry:
    """The policy of retries: the number of attempts and the delays between them, about two hours in all by default.

    Args:
        max_attempts: runs in all, the first included.
        base_delay: seconds before the second run; doubled for each run after it.
        max_delay: seconds, the longest delay.
        jitter: spread each delay over half to one and a half of itself, so that deliveries that failed together are
            not retried together.

    Raises:
        ConfigurationError: an invalid number.
    """

    max_attempts: int = 20
    base_delay: float = 2.0
    max_delay: float = 600.0
    jitter: bool = True

    def __new__(cls, *_args: object, **given: object) -> Self:
        """Refuse an option that does not exist, before ``__init__`` does it without a hint."""
        known = [field.name for field in fields(cls)]
        if cls is Retry:  # a subclass may take more
            reject_unknown("Retry()", given, known, RETRY_ALIASES)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if not (
            isinstance(self.max_attempts, int)
            and self.max_attempts >= 1
            and _is_seconds(self.base_delay)
            and _is_seconds(self.max_delay)
        ):
            raise ConfigurationError(
                f"{self!r}: max_attempts counts the first run, so it is at least 1; delays are seconds, from 0 to a "
                "year."
            )

    def delay(self, attempt: int, error: BaseException | None = None, *, spread: float = 0.5) -> float | None:
        """Return the delay before the attempt that follows a failed one.

        Args:
            attempt: how many times it has run, 1 after the first.
            error: the receiver's exception; RetryLater and Reject are obeyed.
            spread: where in the jitter's range the delay lies, from 0 up to 1.

        Returns:
            Seconds until the next run, or None: the delivery is dead.
        """
        if isinstance(error, Reject) or attempt >= self.max_attempts:
            return None
        if isinstance(error, RetryLater):
            return min(max(0.0, error.delay), LONGEST)
        # The exponent is bounded so that a delivery retried by hand for the thousandth time cannot overflow a float.
        delay = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 64))
        return min(self.max_delay, delay * (0.5 + spread)) if self.jitter else delay
