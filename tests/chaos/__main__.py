"""``make chaos``: run the faults and the scenarios, print their tables, and fail if an expectation does not hold."""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import django

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.chaos.report import Result


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--form", choices=("short", "long"), default="long", help="how much, where nothing else is said"
    )
    parser.add_argument("--faults", default="", help="names with commas; all of the form's if no scenarios are named")
    parser.add_argument("--scenarios", default="", help="names with commas; all of the form's if no faults are named")
    parser.add_argument("--databases", default="", help="postgres, sqlite, or both with a comma")
    parser.add_argument("--seconds", type=float, help="of each fault, and of each phase of a scenario")
    parser.add_argument("--rate", type=float, help="messages a second")
    parser.add_argument("--kills", type=int, help="of each fault that ends processes, at least")
    parser.add_argument(
        "--transport", choices=("ours", "kombu"), default="ours", help="by which the workers consume from Valkey"
    )
    parser.add_argument("--seed", type=int, help="of what is random here; processes and their clocks are not")
    parser.add_argument("--json", type=Path, default=Path("chaos.json"), help="where the JSON goes")
    parser.add_argument("--list", action="store_true", help="print the names, and do nothing")
    return parser.parse_args(given)


def chosen(given: str, known: Sequence[str], default: Sequence[str]) -> list[str]:
    """Return the requested names, in their own order."""
    names = [name for name in given.split(",") if name]
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"There is no {', '.join(unknown)}; there are {', '.join(known)}.")
    return names or list(default)


def main(given: Sequence[str]) -> int:
    """Run the requested faults and scenarios; return 0 if all expectations held."""
    options = arguments(given)
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.chaos.project.settings"
    os.environ["CHAOS_TRANSPORT"] = options.transport
    django.setup()
    from tests.chaos import faults, report, running, scenarios
    from tests.chaos.servers import RestartablePostgres

    if options.list:
        print("\n".join([*faults.FAULTS, *scenarios.SCENARIOS]))
        return 0
    short = options.form == "short"
    plan = running.Plan(
        seconds=options.seconds or (4.0 if short else 60.0),
        rate=options.rate or 60.0,
        kills=options.kills or (3 if short else 100),
        timed=not short,
    )
    # Who asks for some of the one wants none of the other.
    every = [] if options.scenarios else list(faults.FAULTS)
    names = chosen(options.faults, list(faults.FAULTS), [name for name in every if not short or name in faults.SHORT])
    every = [] if options.faults or short else list(scenarios.SCENARIOS)
    scenario_names = chosen(options.scenarios, list(scenarios.SCENARIOS), every)
    databases = chosen(options.databases, faults.BOTH, faults.SERVER if short else faults.BOTH)
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    random.seed(seed)
    judged = "times are judged" if plan.timed else "times are told, and not judged"
    print(
        f"chaos: {plan.seconds:g} s each, {plan.rate:g} messages a second, transport {options.transport}, "
        f"seed {seed}; {judged}",
        flush=True,
    )

    results: list[Result] = []
    pressed: list[Result] = []
    with ExitStack() as stack:
        postgres = stack.enter_context(RestartablePostgres()) if "postgres" in databases or scenario_names else None
        rows = [(name, each) for each in databases for name in names if each in faults.FAULTS[name].databases]
        results.extend(_told(running.run(*row, plan, postgres)) for row in rows)
        for name in scenario_names:
            assert postgres is not None
            pressed += [_told(each) for each in scenarios.run(name, plan, postgres)]
    for part in [report.table(results)] * bool(results) + [report.scenarios_table(pressed)] * bool(pressed):
        print(f"\n{part}")
    report.write(
        options.json, results, pressed, seed=seed, form=options.form, seconds=plan.seconds, rate=plan.rate,
        transport=options.transport,
    )  # fmt: skip
    return int(any(each.broken for each in [*results, *pressed]))


def _told(result: Result) -> Result:
    """Print a line at once, because a long run takes long."""
    where = f" (logs: {result.kept})" if result.kept else ""
    print(f"{time.strftime('%H:%M:%S')} {result.name} on {result.database}: {result.verdict}{where}", flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
