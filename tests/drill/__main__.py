"""``make drill``: play the incidents, print the answers as a table, and fail if one is wrong or slow."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from collections.abc import Sequence


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--form", choices=("short", "long"), default="long", help="300 messages with the bug, or 3,000")
    parser.add_argument("--markdown", type=Path, metavar="DOCUMENT", help="write the table between two marks of it")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Play the incidents; return 0 if all answers are right and none was slow."""
    options = arguments(given)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.drill.shop.settings"
    os.environ["SHOP_RELEASE"] = "1"
    django.setup()
    from tests.drill.answers import Answers, most_seconds, write_table
    from tests.drill.incidents import Drill, Sizes
    from tests.drill.production import Production

    sizes = Sizes(bug=300, flushed=100) if options.form == "short" else Sizes(bug=3000)
    directory = Path(tempfile.mkdtemp(prefix="signalbus-drill-"))
    answers, stopped, began = Answers(), "", time.monotonic()
    with Production(directory) as production:
        print(f"drill: {sizes.bug:,} messages with the bug", flush=True)
        answers.measure_start(production.environment)
        drill = Drill(production, answers, sizes)
        try:
            drill.play()
        except AssertionError as error:
            stopped = str(error)
    slowest = max(answers.starts)
    for each in answers.asked:
        each.judge(slowest)
    summary = (
        f"In this run a command took {min(answers.starts):.1f} to {slowest:.1f} s to start, {sizes.bug:,} messages met "
        "the bug, and a delivery behind\nthem in the same queue, to a receiver that succeeds, "
        f"took {drill.healthy_seconds:.1f} s."
    )
    print(f"\n{answers.table()}\n\n{summary} All took {time.monotonic() - began:.0f} s.")
    faults = answers.faults or [stopped] * bool(stopped)
    if drill.healthy_seconds > most_seconds(slowest):
        faults.append("that is too long: the receiver that fails holds up the others")
    if faults:
        print("\n".join([*faults, f"the workers' logs: {directory}"]))
        return 1
    shutil.rmtree(directory)
    if options.markdown:
        write_table(options.markdown, [answers.table(), "", summary])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
