"""Counting and logging of message fields that this release does not know."""

import time
from collections import Counter
from collections.abc import Callable, Iterable

import structlog

from daybook_domain.intake.parsing import Delivery
from daybook_worker.metrics import WorkerMetrics

log = structlog.stdlib.get_logger(__name__)

OTHER = "other"
"""Label of all fields after the first `_MAX_NAMES`."""

LOG_INTERVAL_SECONDS = 60.0

_MAX_NAMES = 100


class UnknownFields:
    """A counter of unknown fields by name.

    Producers choose the names, so the number of labels is limited, and a log line with all counts
    is written at most once per interval.
    """

    def __init__(
        self, metrics: WorkerMetrics, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._monotonic = monotonic
        self._names: set[tuple[str, str]] = set()
        self._unlogged: Counter[str] = Counter()
        self._next_log_at = float("-inf")

    def record(self, deliveries: Iterable[Delivery]) -> None:
        """Count the unknown fields of committed messages."""
        for delivery in deliveries:
            for field in delivery.unknown_fields:
                label = self._label(delivery.queue, field)
                self._metrics.unknown_fields.labels(delivery.queue, label).inc()
                self._unlogged[f"{delivery.queue}: {label}"] += 1
        if self._unlogged and self._monotonic() >= self._next_log_at:
            log.warning("unknown fields ignored", counts=dict(self._unlogged))
            self._unlogged.clear()
            self._next_log_at = self._monotonic() + LOG_INTERVAL_SECONDS

    def _label(self, queue: str, field: str) -> str:
        if (queue, field) not in self._names:
            if len(self._names) >= _MAX_NAMES:
                return OTHER
            self._names.add((queue, field))
        return field
