"""Counts and log lines of unknown message fields."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from daybook_domain.intake.parsing import Delivery, parse_delivery
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.unknown_fields import LOG_INTERVAL_SECONDS, OTHER, UnknownFields
from tests.support.factories.messages import encode_message, product_message


def with_field(name: str) -> Delivery:
    return parse_delivery("product", encode_message({"name": "pot", "price": 1, name: "red"}))


def count(registry: CollectorRegistry, field: str) -> float | None:
    labels = {"queue": "product", "field": field}
    return registry.get_sample_value("daybook_intake_unknown_fields_total", labels)


@pytest.fixture
def metrics() -> WorkerMetrics:
    """Return metrics of a new worker."""
    return WorkerMetrics()


def test_fields_are_counted_by_name(metrics: WorkerMetrics) -> None:
    fields = UnknownFields(metrics)

    fields.record([with_field("colour"), with_field("colour"), with_field("size")])
    fields.record(
        [parse_delivery("product", product_message()), parse_delivery("product", b"nonsense")]
    )

    assert (count(metrics.registry, "colour"), count(metrics.registry, "size")) == (2, 1)


def test_the_number_of_labels_is_limited(metrics: WorkerMetrics) -> None:
    fields = UnknownFields(metrics)

    fields.record(with_field(f"field{n}") for n in range(150))
    fields.record([with_field("field0")])

    assert count(metrics.registry, OTHER) == 50
    assert count(metrics.registry, "field0") == 2
    assert count(metrics.registry, "field149") is None


def test_the_log_has_one_line_per_interval_with_all_counts(metrics: WorkerMetrics) -> None:
    now = 0.0
    fields = UnknownFields(metrics, monotonic=lambda: now)

    with capture_logs() as lines:
        for _ in range(1000):
            fields.record([with_field("colour")])
        now += LOG_INTERVAL_SECONDS
        fields.record([with_field("size")])

    assert [line["counts"] for line in lines] == [
        {"product: colour": 1},
        {"product: colour": 999, "product: size": 1},
    ]
