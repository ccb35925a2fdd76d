"""Decisions of a backfill about each date: build, join a run, or skip."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from daybook_domain.backfills.models import BackfillDayOutcome, BackfillMode
from daybook_domain.reports.business_day import BusinessDay


class DayAction(StrEnum):
    """What a backfill does with a date."""

    BUILD = "build"
    JOIN = "join"
    """Another run builds the date, or has built it since the backfill was requested."""
    SEALED = "skip: sealed"
    NOT_FAILED = "skip: not failed"
    NONEXISTENT = "skip: never was"

    @property
    def initial_outcome(self) -> BackfillDayOutcome:
        """The outcome that the date is stored with at first."""
        return _INITIAL_OUTCOMES.get(self, BackfillDayOutcome.OPEN)


_INITIAL_OUTCOMES = {
    DayAction.SEALED: BackfillDayOutcome.SEALED,
    DayAction.NOT_FAILED: BackfillDayOutcome.NOT_FAILED,
    DayAction.NONEXISTENT: BackfillDayOutcome.NONEXISTENT,
}


@dataclass(frozen=True)
class DayFacts:
    """The state of a date and its runs when a backfill decides about it."""

    sealed: bool = False
    failed: bool = False
    """The latest of its runs that succeeded or failed has failed."""
    pending_run_id: UUID | None = None
    started_run_id: UUID | None = None
    """The latest started run of those that are running or succeeded."""
    started_at: datetime | None = None
    is_running: bool = False
    """The started run has not ended."""


@dataclass(frozen=True)
class DayDecision:
    """The action for a date, and the run that it joins."""

    action: DayAction
    run_id: UUID | None = None


def decide(
    mode: BackfillMode, day: BusinessDay, facts: DayFacts, *, since: datetime
) -> DayDecision:
    """Return the decision about `day` in a backfill that was requested at `since`.

    A run that started after `since` has read every order that existed at the request.
    """
    if day.starts_at == day.ends_at:
        return DayDecision(DayAction.NONEXISTENT)
    if mode is BackfillMode.ABSENT and facts.sealed:
        return DayDecision(DayAction.SEALED)
    if mode is BackfillMode.FAILED and not facts.failed:
        return DayDecision(DayAction.NOT_FAILED)
    if facts.pending_run_id is not None:
        return DayDecision(DayAction.JOIN, facts.pending_run_id)
    if facts.started_at is not None and (
        facts.started_at >= since
        # It is about to seal the day, which is all that this mode requires.
        or (mode is BackfillMode.ABSENT and facts.is_running and facts.started_at >= day.ends_at)
    ):
        return DayDecision(DayAction.JOIN, facts.started_run_id)
    return DayDecision(DayAction.BUILD)
