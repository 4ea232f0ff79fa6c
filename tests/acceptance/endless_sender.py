"""A process that saves cohorts, and so sends signals, in one transaction after the other until it is killed.

``python -m tests.acceptance.endless_sender``. Some transactions hold several cohorts, and some are rolled back. The
process writes a line after each that was committed.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from contextlib import suppress

import django
from django.db import transaction


class RolledBack(Exception):
    """Ends a transaction on purpose."""


def main() -> None:
    """Save until killed."""
    django.setup()
    from tasks.admissions.models import Academy, Cohort

    academy, _ = Academy.objects.get_or_create(name="Downtown", slug="downtown")
    numbers = itertools.count()
    while True:
        with suppress(RolledBack):
            with transaction.atomic():
                for _ in range(random.choice((1, 1, 2, 5))):
                    slug = f"c{os.getpid()}-{next(numbers)}"
                    Cohort.objects.create(academy=academy, name=slug, slug=slug)
                if random.random() < 0.1:
                    raise RolledBack
            sys.stdout.write(".\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
