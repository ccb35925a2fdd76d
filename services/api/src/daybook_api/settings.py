"""What must the API be told?"""

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from daybook_platform.settings import (
    POSITIVE,
    CacheSettings,
    CalendarSettings,
    DatabaseSettings,
    DurationSeconds,
    LatenessSettings,
    LogSettings,
    Port,
)


class ApiSettings(DatabaseSettings, CacheSettings, CalendarSettings, LatenessSettings, LogSettings):
    """Everything that the environment may say to the API."""

    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    query_timeout: Annotated[DurationSeconds, POSITIVE] = timedelta(seconds=30)
    """A request whose database does not answer for so long is refused."""
    idempotency_retention: Annotated[DurationSeconds, POSITIVE] = timedelta(days=1)
    """For how long a request that comes again with its `Idempotency-Key` is known."""
    stream_timeout: Annotated[DurationSeconds, POSITIVE] = timedelta(seconds=60)
    """A reader of a report who takes nothing for so long is cut off: it holds a snapshot."""
    stream_limit: Annotated[int, Field(ge=1, le=1000)] = 16
    """How many reports may be on their way at once; each has a connection to Postgres."""
    event_readers: Annotated[int, Field(ge=1, le=10_000)] = 200
    """How many may follow events at once; each is a connection that stays open."""
