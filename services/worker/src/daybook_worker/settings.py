"""What must the worker be told?"""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from daybook_platform.settings import (
    POSITIVE,
    BrokerSettings,
    CacheSettings,
    CalendarSettings,
    DatabaseSettings,
    DurationSeconds,
    HealthSettings,
    LogSettings,
    seconds_between,
)


class WorkerSettings(
    DatabaseSettings, BrokerSettings, CacheSettings, CalendarSettings, LogSettings, HealthSettings
):
    """The worker's environment."""

    concurrency: Annotated[int, Field(ge=1, le=100)] = 2
    """How many reports are built at once; also the messages taken from RabbitMQ in advance.

    Backfills leave one of them free, unless there is only one.
    """
    lease_seconds: Annotated[DurationSeconds, seconds_between(1, 3600)] = timedelta(seconds=60)
    """A run whose worker was not heard of for so long is given to another."""
    drain_seconds: Annotated[DurationSeconds, seconds_between(0, 3600)] = timedelta(seconds=20)
    """A worker that is told to stop lets builds finish for so long, then gives them back."""

    intake_batch: Annotated[int, Field(ge=1, le=5000)] = 500
    """How many messages are committed in one transaction at most."""
    intake_linger: Annotated[DurationSeconds, POSITIVE] = timedelta(milliseconds=5)
    """How long a message waits for company before its transaction begins."""
    intake_patience: Annotated[DurationSeconds, POSITIVE] = timedelta(minutes=10)
    """How long a message is tried again that refers to something that is not there."""
    intake_remember: Annotated[DurationSeconds, POSITIVE] = timedelta(days=7)
    """How long a message with an id is known, so that a second one has no effect."""
