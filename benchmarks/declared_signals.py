"""A signal that declares its payload, and its receiver; apart, because earlier versions cannot declare one."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.receivers import fetch
from signalbus import Signal
from tasks.admissions.models import Cohort


@dataclass(frozen=True, kw_only=True)
class CohortFetched:
    """A cohort was fetched."""

    instance: Cohort
    created: bool


declared = Signal("benchmarks.declared", payload=CohortFetched, durable=False)  # otherwise as `signals.fetched`
declared.connect(fetch, sender=Cohort)
