"""What does the worker count?"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
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
