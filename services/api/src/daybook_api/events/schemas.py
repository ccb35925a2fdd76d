"""Payloads of server-sent events, for the OpenAPI document: Postgres renders them (JSON)."""

from datetime import date, datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from daybook_domain.backfills.models import BackfillState
from daybook_domain.reports.models import DayState
from daybook_domain.runs.models import RunState, RunTrigger


class RunEvent(BaseModel):
    """`data` of a `run` event: the state of a run has changed, or the run is new."""

    id: UUID
    report_date: date
    state: RunState
    trigger: RunTrigger
    schedule_id: int | None
    backfill_id: UUID | None


class DayEvent(BaseModel):
    """`data` of a `day` event: the report of a day has a new revision, or was sealed."""

    report_date: date
    revision: int
    state: DayState


class BackfillEvent(BaseModel):
    """`data` of a `backfill` event: the state of a backfill has changed, or it is new."""

    id: UUID
    state: BackfillState
    finished_at: datetime | None


class ManyEvent(BaseModel):
    """`data` of a `many` event: one statement changed so many rows that they are not listed."""

    table: Literal["report_runs", "report_days", "backfills"]
    rows: int = Field(description="Number of changed rows.")


class ResetEvent(BaseModel):
    """`data` of a `reset` event: changes may have been missed; query the current state again."""
