"""Settings of the worker."""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from daybook_platform.settings import (
    POSITIVE,
    BrokerSettings,
    CalendarSettings,
    DatabaseSettings,
    DurationSeconds,
    HealthSettings,
    LogSettings,
    OutageSettings,
    RedisSettings,
    seconds_between,
)


class WorkerSettings(
    DatabaseSettings,
    BrokerSettings,
    RedisSettings,
    CalendarSettings,
    OutageSettings,
    LogSettings,
    HealthSettings,
):
    """The settings of the worker, read from `DAYBOOK_*` environment variables."""

    concurrency: Annotated[int, Field(ge=1, le=100)] = 2
    """Number of reports that are built concurrently, and prefetch count of run messages.

    Backfills use at most one less, unless it is 1.
    """
    lease_seconds: Annotated[DurationSeconds, seconds_between(1, 3600)] = timedelta(seconds=60)
    """Maximum time without a heartbeat after which a run is reaped."""
    drain_seconds: Annotated[DurationSeconds, seconds_between(0, 3600)] = timedelta(seconds=20)
    """Maximum time that active builds may take to finish at shutdown, before they are released."""

    intake_batch: Annotated[int, Field(ge=1, le=5000)] = 500
    """Maximum number of messages that are committed in one transaction."""
    intake_linger: Annotated[DurationSeconds, POSITIVE] = timedelta(milliseconds=5)
    """Maximum time a batch waits for more messages."""
    intake_patience: Annotated[DurationSeconds, POSITIVE] = timedelta(minutes=10)
    """Maximum time a message is retried while an entity that it refers to is missing."""
    intake_remember: Annotated[DurationSeconds, POSITIVE] = timedelta(days=7)
    """Retention time of message ids for deduplication."""
