"""Request and response bodies of TaskIQ schedule entries."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from daybook_domain.validation import Storable


class TaskiqEntryOut(BaseModel):
    """An entry of TaskIQ's schedule source in Redis."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="TaskIQ's `schedule_id`, and the name of the schedule in Daybook.")
    schedule_id: int | None
    problem: str | None = Field(description="The reason why the entry cannot be fired.")
    created_at: datetime


class TaskiqEntries(BaseModel):
    """A page of entries, by id."""

    entries: list[TaskiqEntryOut]
    next: str | None = Field(
        description="Value of `after` for the next page; null on the last page."
    )


class TaskiqEntriesQuery(BaseModel):
    """Filters of the list of entries."""

    model_config = ConfigDict(extra="forbid")

    broken: bool | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    after: Annotated[str, Field(max_length=200), Storable] = ""
