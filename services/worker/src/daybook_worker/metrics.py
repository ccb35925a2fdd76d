"""What does the worker count?"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_BATCH_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)


class WorkerMetrics:
    """The worker's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = Gauge(
            "daybook_runs_running", "Runs that this worker is building.", registry=self.registry
        )
        self.finished = Counter(
            "daybook_runs_finished",
            "Runs that this worker has ended with, by outcome: succeeded, failed (whether or not "
            "it is tried again), lost (to another worker), released (on shutdown).",
            ["outcome"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "daybook_run_seconds",
            "Seconds from claim to end, by outcome.",
            ["outcome"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.messages = Counter(
            "daybook_intake_messages",
            "Messages that this worker has settled, by queue and outcome: applied, duplicate, "
            "waiting (for what they refer to), kept (as dead letters).",
            ["queue", "outcome"],
            registry=self.registry,
        )
        self.dead_letters = Counter(
            "daybook_intake_dead_letters",
            "Messages that this worker has written down as dead letters, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "daybook_intake_batch_seconds",
            "Seconds from the first attempt at a batch to its commit.",
            buckets=_BATCH_SECONDS,
            registry=self.registry,
        )
        self.waiting = Gauge(
            "daybook_intake_waiting",
            "Dead letters that wait to be tried again, of all workers.",
            registry=self.registry,
        )
