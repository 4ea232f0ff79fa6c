"""Watch the tracking connections of the channels of one kombu connection, from Celery's event loop.

`kombu_transport` has one for each transport. It lets each channel send its claims before the loop waits.
"""

from __future__ import annotations

from typing import Any

from signalbus.compat import redis_internals as compat
from signalbus.compat.kombu_hub import wake_for_threads


class Poller(compat.LoopPoller):
    """kombu's poller, which also watches the tracking connections of channels that claim."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: Any = None  # Celery's, once it has said so; channels claim only then
        self._channel_of: dict[int, Any] = {}

    def join(self, loop: Any) -> None:
        """Run in an event loop."""
        self.loop = loop
        loop.on_tick.add(self.tick)
        wake_for_threads(loop)

    def close(self) -> None:
        """Leave the loop; kombu's name."""
        if self.loop is not None:
            self.loop.on_tick.discard(self.tick)
        super().close()

    def watch(self, channel: Any, fileno: int) -> None:
        """Call a channel when its tracking connection can be read."""
        self._channel_of[fileno] = channel
        self.loop.add_reader(fileno, self._on_readable, fileno)

    def unwatch(self, channel: Any) -> None:
        """Stop watching a channel's tracking connection."""
        for fileno in [fileno for fileno, known in self._channel_of.items() if known is channel]:
            del self._channel_of[fileno]
            callback, _ = self.loop.readers.get(fileno) or (None, ())
            if callback == self._on_readable:  # else the descriptor is another's by now
                self.loop.remove(fileno)

    def tick(self) -> None:
        """Let each channel send, before the loop waits."""
        for channel in list(self._channel_of.values()):
            channel.tick()

    def _on_readable(self, fileno: int) -> None:
        channel = self._channel_of.get(fileno)
        if channel is not None:
            channel.on_readable()
