"""What becomes of one date of a backfill? Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from daybook_domain.backfills.models import BackfillDayOutcome, BackfillMode
from daybook_domain.reports.business_day import BusinessDay


class DayAction(StrEnum):
    """What becomes of a date?"""

    BUILD = "build"
    JOIN = "join"
    """Another run builds it, or has done so since it was asked for."""
    SEALED = "skip: sealed"
    NOT_FAILED = "skip: not failed"
    NEVER_WAS = "skip: never was"

    @property
    def outcome(self) -> BackfillDayOutcome:
        """With which outcome the date begins."""
        return _OUTCOMES.get(self, BackfillDayOutcome.OPEN)


_OUTCOMES = {
    DayAction.SEALED: BackfillDayOutcome.SEALED,
    DayAction.NOT_FAILED: BackfillDayOutcome.NOT_FAILED,
    DayAction.NEVER_WAS: BackfillDayOutcome.NEVER_WAS,
}


@dataclass(frozen=True)
class DayFacts:
    """What is known about a date when a backfill comes to it."""

    sealed: bool = False
    failed: bool = False
    """Of its runs that ended with or without a report, the latest ended without."""
    waiting_run_id: UUID | None = None
    begun_run_id: UUID | None = None
    """The run, running or succeeded, that began last."""
    begun_at: datetime | None = None
    is_running: bool = False
    """That run has not ended."""


@dataclass(frozen=True)
class DayDecision:
    """A verdict, and the run that is joined."""

    verdict: DayAction
    run_id: UUID | None = None


def decide(
    mode: BackfillMode, day: BusinessDay, facts: DayFacts, *, since: datetime
) -> DayDecision:
    """Return what becomes of `day` in a backfill that was asked for at `since`.

    A run that began after that saw every order that the caller can have meant.
    """
    if day.starts_at == day.ends_at:
        return DayDecision(DayAction.NEVER_WAS)
    if mode is BackfillMode.ABSENT and facts.sealed:
        return DayDecision(DayAction.SEALED)
    if mode is BackfillMode.FAILED and not facts.failed:
        return DayDecision(DayAction.NOT_FAILED)
    if facts.waiting_run_id is not None:
        return DayDecision(DayAction.JOIN, facts.waiting_run_id)
    if facts.begun_at is not None and (
        facts.begun_at >= since
        # It is about to seal the day, which is all that is wanted.
        or (mode is BackfillMode.ABSENT and facts.is_running and facts.begun_at >= day.ends_at)
    ):
        return DayDecision(DayAction.JOIN, facts.begun_run_id)
    return DayDecision(DayAction.BUILD)
