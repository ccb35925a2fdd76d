"""What must the worker be told?"""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from daybook_domain.settings import (
    BrokerSettings,
    CalendarSettings,
    DatabaseSettings,
    HealthSettings,
    LogSettings,
    RedisSettings,
)


class WorkerSettings(
    DatabaseSettings, BrokerSettings, RedisSettings, CalendarSettings, LogSettings, HealthSettings
):
    """The worker's environment."""

    concurrency: Annotated[int, Field(ge=1, le=100)] = 2
    """How many reports are built at once; also the messages taken from RabbitMQ in advance."""
    lease_seconds: Annotated[float, Field(ge=1, le=3600)] = 60
    """A run whose worker was not heard of for so long is given to another."""
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = 20
    """A worker that is told to stop lets builds finish for so long, then gives them back."""

    @property
    def lease(self) -> timedelta:
        """The lease."""
        return timedelta(seconds=self.lease_seconds)
