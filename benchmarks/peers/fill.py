"""Sends a peer's messages: ``python -m benchmarks.peers.fill MODULE COUNT``.

Where the queue is a database, it says so when all are written, and commits when it is told to.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import nullcontext

import django


def main(module: str, count: int) -> None:
    """Send them."""
    if "DJANGO_SETTINGS_MODULE" in os.environ:
        django.setup()
    peer = importlib.import_module(module)
    with getattr(peer, "transaction", nullcontext)():
        peer.send(count)
        print("filled", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
