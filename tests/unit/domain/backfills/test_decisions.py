"""What becomes of one date of a backfill?"""

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest

from daybook_domain.backfills.decisions import DayAction, DayFacts, decide
from daybook_domain.backfills.models import BackfillMode
from daybook_domain.reports.business_day import business_day

DAY = business_day(date(2026, 3, 1), timezone="UTC")
ASKED_AT = DAY.ends_at + timedelta(days=3)
BEFORE, AFTER = ASKED_AT - timedelta(hours=1), ASKED_AT + timedelta(hours=1)
WAITING, BEGUN = UUID(int=1), UUID(int=2)

SEALED = DayFacts(sealed=True, begun_run_id=BEGUN, begun_at=BEFORE)
FAILED = DayFacts(failed=True)


@pytest.mark.parametrize(
    ("mode", "facts", "verdict"),
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
def test_the_mode_says_which_dates_are_built(
    mode: BackfillMode, facts: DayFacts, verdict: DayAction
) -> None:
    assert decide(mode, DAY, facts, since=ASKED_AT).verdict is verdict


@pytest.mark.parametrize("mode", BackfillMode)
def test_a_run_that_waits_is_joined(mode: BackfillMode) -> None:
    facts = DayFacts(failed=True, waiting_run_id=WAITING, begun_run_id=BEGUN, begun_at=AFTER)

    decision = decide(mode, DAY, facts, since=ASKED_AT)

    assert (decision.verdict, decision.run_id) == (DayAction.JOIN, WAITING)


@pytest.mark.parametrize("mode", BackfillMode)
def test_a_run_that_began_since_it_was_asked_for_is_joined(mode: BackfillMode) -> None:
    facts = DayFacts(failed=True, begun_run_id=BEGUN, begun_at=ASKED_AT)

    decision = decide(mode, DAY, facts, since=ASKED_AT)

    assert (decision.verdict, decision.run_id) == (DayAction.JOIN, BEGUN)


@pytest.mark.parametrize(
    ("mode", "began", "verdict"),
    [
        # It will seal the day, and that is all.
        (BackfillMode.ABSENT, BEFORE, DayAction.JOIN),
        (BackfillMode.ABSENT, DAY.ends_at - timedelta(seconds=1), DayAction.BUILD),
        # It may have read the orders before those that the caller means.
        (BackfillMode.ALL, BEFORE, DayAction.BUILD),
        (BackfillMode.FAILED, BEFORE, DayAction.BUILD),
    ],
)
def test_a_build_that_began_before_is_joined_where_it_serves(
    mode: BackfillMode, began: datetime, verdict: DayAction
) -> None:
    facts = DayFacts(failed=True, begun_run_id=BEGUN, begun_at=began, is_running=True)

    assert decide(mode, DAY, facts, since=ASKED_AT).verdict is verdict


@pytest.mark.parametrize("mode", BackfillMode)
def test_a_date_that_the_zone_never_had_is_not_built(mode: BackfillMode) -> None:
    never = business_day(date(2011, 12, 30), timezone="Pacific/Apia")

    assert decide(mode, never, FAILED, since=ASKED_AT).verdict is DayAction.NEVER_WAS
