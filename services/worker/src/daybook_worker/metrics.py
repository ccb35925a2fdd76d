"""Prometheus metrics of the worker."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_RUN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_BATCH_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class WorkerMetrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = Gauge(
            "daybook_runs_running",
            "Number of runs that this worker is building.",
            registry=self.registry,
        )
        self.finished = Counter(
            "daybook_runs_finished",
            "Runs finished by this worker, by outcome: succeeded, failed (whether or not it is "
            "retried), lost (reaped or cancelled), released (at shutdown).",
            ["outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "daybook_run_seconds",
            "Time in seconds from the claim of a run to its end, by outcome.",
            ["outcome"],
            buckets=_RUN_BUCKETS,
            registry=self.registry,
        )
        self.messages = Counter(
            "daybook_intake_messages",
            "Intake messages settled by this worker, by queue and outcome: applied, duplicate, "
            "waiting (for a retry, because a referenced entity is missing), kept (dead-lettered).",
            ["queue", "outcome"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "daybook_intake_dead_letters",
            "Intake messages dead-lettered by this worker, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.unknown_fields = Counter(
            "daybook_intake_unknown_fields",
            "Fields of committed intake messages that this release ignores, by queue and path; "
            "`other` stands for all after the first 100 paths.",
            ["queue", "field"],
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "daybook_intake_batch_seconds",
            "Time in seconds from the first attempt to process a batch to its commit.",
            buckets=_BATCH_BUCKETS,
            registry=self.registry,
        )
        self.waiting = Gauge(
            "daybook_intake_waiting",
            "Number of dead letters that wait for a retry, over all workers.",
            registry=self.registry,
        )
