"""What must the worker be told?"""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from daybook_platform.settings import (
    BrokerSettings,
    CacheSettings,
    CalendarSettings,
    DatabaseSettings,
    HealthSettings,
    LogSettings,
    Seconds,
)


class WorkerSettings(
    DatabaseSettings, BrokerSettings, CacheSettings, CalendarSettings, LogSettings, HealthSettings
):
    """The worker's environment."""

    concurrency: Annotated[int, Field(ge=1, le=100)] = 2
    """How many reports are built at once; also the messages taken from RabbitMQ in advance.

    Backfills leave one of them free, unless there is only one.
    """
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 60
    """A run whose worker was not heard of for so long is given to another."""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 20
    """A worker that is told to stop lets builds finish for so long, then gives them back."""

    intake_batch: Annotated[int, Field(ge=1, le=5000)] = 500
    """How many messages are committed in one transaction at most."""
    intake_linger: Seconds = timedelta(milliseconds=5)
    """How long a message waits for company before its transaction begins."""
    intake_patience: Seconds = timedelta(minutes=10)
    """How long a message is tried again that refers to something that is not there."""
    intake_remember: Seconds = timedelta(days=7)
    """How long a message with an id is known, so that a second one has no effect."""

    @property
    def lease(self) -> timedelta:
        """The lease."""
        return timedelta(seconds=self.lease_seconds)
