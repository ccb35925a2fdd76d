"""What becomes of one date of a backfill?"""

from datetime import date, datetime, timedelta
from uuid import UUID

import pytest

from daybook_domain.backfills.decisions import Facts, Verdict, decide
from daybook_domain.backfills.models import Mode
from daybook_domain.reports.calendar import business_day

DAY = business_day(date(2026, 3, 1), timezone="UTC")
ASKED_AT = DAY.ends_at + timedelta(days=3)
BEFORE, AFTER = ASKED_AT - timedelta(hours=1), ASKED_AT + timedelta(hours=1)
WAITING, BEGUN = UUID(int=1), UUID(int=2)

SEALED = Facts(sealed=True, begun_run_id=BEGUN, begun_at=BEFORE)
FAILED = Facts(failed=True)


@pytest.mark.parametrize(
    ("mode", "facts", "verdict"),
    [
        (Mode.ABSENT, Facts(), Verdict.BUILD),
        (Mode.ABSENT, SEALED, Verdict.SEALED),
        (Mode.ABSENT, FAILED, Verdict.BUILD),
        (Mode.FAILED, Facts(), Verdict.NOT_FAILED),
        (Mode.FAILED, SEALED, Verdict.NOT_FAILED),
        (Mode.FAILED, FAILED, Verdict.BUILD),
        (Mode.ALL, Facts(), Verdict.BUILD),
        (Mode.ALL, SEALED, Verdict.BUILD),
        (Mode.ALL, FAILED, Verdict.BUILD),
    ],
)
def test_the_mode_says_which_dates_are_built(mode: Mode, facts: Facts, verdict: Verdict) -> None:
    assert decide(mode, DAY, facts, since=ASKED_AT).verdict is verdict


@pytest.mark.parametrize("mode", Mode)
def test_a_run_that_waits_is_joined(mode: Mode) -> None:
    facts = Facts(failed=True, waiting_run_id=WAITING, begun_run_id=BEGUN, begun_at=AFTER)

    decision = decide(mode, DAY, facts, since=ASKED_AT)

    assert (decision.verdict, decision.run_id) == (Verdict.JOIN, WAITING)


@pytest.mark.parametrize("mode", Mode)
def test_a_run_that_began_since_it_was_asked_for_is_joined(mode: Mode) -> None:
    facts = Facts(failed=True, begun_run_id=BEGUN, begun_at=ASKED_AT)

    decision = decide(mode, DAY, facts, since=ASKED_AT)

    assert (decision.verdict, decision.run_id) == (Verdict.JOIN, BEGUN)


@pytest.mark.parametrize(
    ("mode", "began", "verdict"),
    [
        # It will seal the day, and that is all.
        (Mode.ABSENT, BEFORE, Verdict.JOIN),
        (Mode.ABSENT, DAY.ends_at - timedelta(seconds=1), Verdict.BUILD),
        # It may have read the orders before those that the caller means.
        (Mode.ALL, BEFORE, Verdict.BUILD),
        (Mode.FAILED, BEFORE, Verdict.BUILD),
    ],
)
def test_a_build_that_began_before_is_joined_where_it_serves(
    mode: Mode, began: datetime, verdict: Verdict
) -> None:
    facts = Facts(failed=True, begun_run_id=BEGUN, begun_at=began, is_running=True)

    assert decide(mode, DAY, facts, since=ASKED_AT).verdict is verdict


@pytest.mark.parametrize("mode", Mode)
def test_a_date_that_the_zone_never_had_is_not_built(mode: Mode) -> None:
    never = business_day(date(2011, 12, 30), timezone="Pacific/Apia")

    assert decide(mode, never, FAILED, since=ASKED_AT).verdict is Verdict.NEVER_WAS
