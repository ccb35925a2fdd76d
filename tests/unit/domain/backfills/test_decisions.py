"""Decisions of a backfill about one date."""

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest

from daybook_domain.backfills.decisions import DayAction, DayFacts, decide
from daybook_domain.backfills.models import BackfillMode
from daybook_domain.reports.business_day import business_day

DAY = business_day(date(2026, 3, 1), timezone="UTC")
REQUESTED_AT = DAY.ends_at + timedelta(days=3)
BEFORE, AFTER = REQUESTED_AT - timedelta(hours=1), REQUESTED_AT + timedelta(hours=1)
PENDING, STARTED = UUID(int=1), UUID(int=2)

SEALED = DayFacts(sealed=True, started_run_id=STARTED, started_at=BEFORE)
FAILED = DayFacts(failed=True)


@pytest.mark.parametrize(
    ("mode", "facts", "action"),
    [
        (BackfillMode.ABSENT, DayFacts(), DayAction.BUILD),
        (BackfillMode.ABSENT, SEALED, DayAction.SEALED),
        (BackfillMode.ABSENT, FAILED, DayAction.BUILD),
        (BackfillMode.FAILED, DayFacts(), DayAction.NOT_FAILED),
        (BackfillMode.FAILED, SEALED, DayAction.NOT_FAILED),
        (BackfillMode.FAILED, FAILED, DayAction.BUILD),
        (BackfillMode.ALL, DayFacts(), DayAction.BUILD),
        (BackfillMode.ALL, SEALED, DayAction.BUILD),
        (BackfillMode.ALL, FAILED, DayAction.BUILD),
    ],
)
def test_the_mode_selects_which_dates_are_built(
    mode: BackfillMode, facts: DayFacts, action: DayAction
) -> None:
    assert decide(mode, DAY, facts, since=REQUESTED_AT).action is action


@pytest.mark.parametrize("mode", BackfillMode)
def test_a_pending_run_is_joined(mode: BackfillMode) -> None:
    facts = DayFacts(failed=True, pending_run_id=PENDING, started_run_id=STARTED, started_at=AFTER)

    decision = decide(mode, DAY, facts, since=REQUESTED_AT)

    assert (decision.action, decision.run_id) == (DayAction.JOIN, PENDING)


@pytest.mark.parametrize("mode", BackfillMode)
def test_a_run_that_started_after_the_request_is_joined(mode: BackfillMode) -> None:
    facts = DayFacts(failed=True, started_run_id=STARTED, started_at=REQUESTED_AT)

    decision = decide(mode, DAY, facts, since=REQUESTED_AT)

    assert (decision.action, decision.run_id) == (DayAction.JOIN, STARTED)


@pytest.mark.parametrize(
    ("mode", "started_at", "action"),
    [
        # It will seal the day, which is all that this mode requires.
        (BackfillMode.ABSENT, BEFORE, DayAction.JOIN),
        (BackfillMode.ABSENT, DAY.ends_at - timedelta(seconds=1), DayAction.BUILD),
        # It may have started before the latest orders of the day were written.
        (BackfillMode.ALL, BEFORE, DayAction.BUILD),
        (BackfillMode.FAILED, BEFORE, DayAction.BUILD),
    ],
)
def test_a_running_build_that_started_before_the_request_is_joined_if_it_seals_the_day(
    mode: BackfillMode, started_at: datetime, action: DayAction
) -> None:
    facts = DayFacts(failed=True, started_run_id=STARTED, started_at=started_at, is_running=True)

    assert decide(mode, DAY, facts, since=REQUESTED_AT).action is action


@pytest.mark.parametrize("mode", BackfillMode)
def test_a_date_that_the_zone_skipped_is_not_built(mode: BackfillMode) -> None:
    skipped = business_day(date(2011, 12, 30), timezone="Pacific/Apia")

    assert decide(mode, skipped, FAILED, since=REQUESTED_AT).action is DayAction.NONEXISTENT
