"""Describes the machine and the versions of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types

from benchmarks.peers import EMISOR, ON_THE_BROKER, ON_THE_DATABASE
from tests.servers import CHECKOUT

OURS = ("Django", "celery", "kombu", "redis", "hiredis", "psycopg")


def describe(servers: dict[str, str]) -> dict[str, Any]:
    """Return the machine and the versions, as JSON has them.

    Args:
        servers: their versions.
    """
    peers = [peer.distribution for peer in (*ON_THE_BROKER, EMISOR, *ON_THE_DATABASE)]
    versions = {name: found for name in dict.fromkeys([*OURS, *peers]) if (found := _version(name)) is not None}
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "load": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": servers | versions,
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def _commit() -> str:
    ended = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    return ended.stdout.strip() or "no checkout"
