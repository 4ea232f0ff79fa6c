"""Watches the channels of one connection, from Celery's event loop."""

from __future__ import annotations

from typing import Any

from signalbus.compat import redis_internals as compat
from signalbus.compat.kombu_hub import wake_for_threads


class Poller(compat.LoopPoller):
    """kombu's, and beside it the lines of channels that claim."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: Any = None  # Celery's, once it has said so; channels claim only then
        self._lines: dict[int, Any] = {}

    def join(self, loop: Any) -> None:
        """Be driven by an event loop."""
        self.loop = loop
        loop.on_tick.add(self.tick)
        wake_for_threads(loop)

    def close(self) -> None:
        """Leave the loop; kombu's name."""
        if self.loop is not None:
            self.loop.on_tick.discard(self.tick)
        super().close()

    def watch(self, channel: Any, fileno: int) -> None:
        """Tell a channel when its line can be read."""
        self._lines[fileno] = channel
        self.loop.add_reader(fileno, self._on_readable, fileno)

    def unwatch(self, channel: Any) -> None:
        """Forget a channel's line."""
        for fileno in [fileno for fileno, known in self._lines.items() if known is channel]:
            del self._lines[fileno]
            callback, _ = self.loop.readers.get(fileno) or (None, ())
            if callback == self._on_readable:  # else the descriptor is another's by now
                self.loop.remove(fileno)

    def tick(self) -> None:
        """Let each channel send, before the loop waits."""
        for channel in list(self._lines.values()):
            channel.tick()

    def _on_readable(self, fileno: int) -> None:
        channel = self._lines.get(fileno)
        if channel is not None:
            channel.on_readable()
