"""What does the scheduler count?"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 1.5, 2.5, 5, 10, 30, 60, 300, 1800, 3600)


class SchedulerMetrics:
    """The scheduler's counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ticks = Counter(
            "daybook_scheduler_ticks",
            "Rounds of a step, by outcome: ok or failed.",
            ["step", "outcome"],
            registry=self.registry,
        )
        self.fires = Counter(
            "daybook_scheduler_fires",
            "Due fires, by what became of them: run, joined, overlapped, paused, missed or failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.dispatched = Counter(
            "daybook_scheduler_dispatched",
            "Runs sent to the workers, by outcome: sent or unsent.",
            ["outcome"],
            registry=self.registry,
        )
        self.lag = Histogram(
            "daybook_scheduler_dispatch_lag_seconds",
            "From when a run was due until it was queued.",
            buckets=LAG_BUCKETS,
            registry=self.registry,
        )
        self.reaped = Counter(
            "daybook_scheduler_reaped",
            "Runs taken back because their lease had run out.",
            registry=self.registry,
        )
        self.pruned = Counter(
            "daybook_scheduler_pruned",
            "Runs that the ledger has forgotten, being older than DAYBOOK_LEDGER_DAYS.",
            registry=self.registry,
        )
        self.reconciled = Counter(
            "daybook_scheduler_reconciled",
            "Days whose rebuild was asked for to let late orders in, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        self.backfilled = Counter(
            "daybook_scheduler_backfilled",
            "Dates of backfills that were decided about: built, joined or skipped.",
            registry=self.registry,
        )
        self.taskiq = Gauge(
            "daybook_scheduler_taskiq_schedules",
            "Schedules of TaskIQ's source in Redis, by whether they are fired or broken.",
            ["state"],
            registry=self.registry,
        )
