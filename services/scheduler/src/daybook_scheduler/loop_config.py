"""Configuration of the scheduler's loop."""

from dataclasses import dataclass
from datetime import timedelta

from daybook_domain.runs.retries import OUTAGE_LIMIT


@dataclass(frozen=True)
class LoopConfig:
    """The settings that decide which reports are due, and how long runs may wait."""

    daily_cron: str
    timezone: str
    reconcile_days: int
    ledger_days: int = 0
    outage_limit: timedelta = OUTAGE_LIMIT
    dispatch_lease: timedelta = timedelta(seconds=30)
    queue_lease: timedelta = timedelta(minutes=5)
    tick: timedelta = timedelta(seconds=1)
    transaction_timeout: timedelta = timedelta(seconds=30)
