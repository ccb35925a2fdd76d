"""Prometheus metrics of the scheduler."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LAG_BUCKETS = (0.1, 0.25, 0.5, 1, 1.5, 2.5, 5, 10, 30, 60, 300, 1800, 3600)


class SchedulerMetrics:
    """The metrics of one scheduler, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ticks = Counter(
            "daybook_scheduler_ticks",
            "Executions of scheduler steps, by step and outcome: ok or failed.",
            ["step", "outcome"],
            registry=self.registry,
        )
        self.fires = Counter(
            "daybook_scheduler_fires",
            "Due fires, by outcome: run, joined, overlapped, paused, missed or failed.",
            ["outcome"],
            registry=self.registry,
        )
        self.dispatched = Counter(
            "daybook_scheduler_dispatched",
            "Runs dispatched to the workers, by outcome: sent or unsent.",
            ["outcome"],
            registry=self.registry,
        )
        self.lag = Histogram(
            "daybook_scheduler_dispatch_lag_seconds",
            "Time in seconds from the due time of a run until it was queued.",
            buckets=_LAG_BUCKETS,
            registry=self.registry,
        )
        self.reaped = Counter(
            "daybook_scheduler_reaped",
            "Runs reaped because their lease had expired.",
            registry=self.registry,
        )
        self.pruned = Counter(
            "daybook_scheduler_pruned",
            "Runs deleted because they were older than DAYBOOK_LEDGER_DAYS.",
            registry=self.registry,
        )
        self.reconciled = Counter(
            "daybook_scheduler_reconciled",
            "Days due for a rebuild that includes late orders, by outcome: requested or postponed.",
            ["outcome"],
            registry=self.registry,
        )
        self.backfilled = Counter(
            "daybook_scheduler_backfilled",
            "Backfill dates decided: built, joined or skipped.",
            registry=self.registry,
        )
        self.taskiq = Gauge(
            "daybook_scheduler_taskiq_schedules",
            "Number of schedules in TaskIQ's Redis source, by state: fired (active) or broken.",
            ["state"],
            registry=self.registry,
        )
