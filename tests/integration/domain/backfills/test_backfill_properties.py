"""A range builds the same dates as its parts, however it is split, and in any order."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from daybook_domain.backfills.models import BackfillMode
from daybook_domain.runs.models import RunState
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.backfills import (
    NOW,
    advance_backfills,
    finish_backfills,
    finish_due_runs,
    march,
    request_backfill,
)
from tests.support.factories.runs import request_run

BEFORE = NOW - timedelta(hours=1)
DAYS = [march(day) for day in range(1, 8)]


class Past(StrEnum):
    """The state of a date before the backfill was requested."""

    ABSENT = "absent"
    SEALED = "sealed"
    FAILED = "failed"
    SEALED_THEN_FAILED = "sealed, then failed"
    PENDING = "pending"
    FAILED_THEN_PENDING = "failed, then pending"


WANTED: Mapping[BackfillMode, frozenset[Past]] = {
    BackfillMode.ABSENT: frozenset(Past) - {Past.SEALED, Past.SEALED_THEN_FAILED},
    BackfillMode.FAILED: frozenset(
        {Past.FAILED, Past.SEALED_THEN_FAILED, Past.FAILED_THEN_PENDING}
    ),
    BackfillMode.ALL: frozenset(Past),
}
PENDING = {Past.PENDING, Past.FAILED_THEN_PENDING}


@dataclass(frozen=True)
class Part:
    """One of the backfills that together cover the range."""

    first: int
    last: int
    concurrency: int
    steps_before_next: int
    """Number of scheduler steps before the next part is requested."""


@st.composite
def partitions(draw: st.DrawFn) -> list[Part]:
    """Return parts that cover all of `DAYS`, which may overlap, in any order."""
    cuts = draw(st.lists(st.integers(1, len(DAYS) - 1), unique=True).map(sorted))
    bounds = list(zip([0, *cuts], [*cuts, len(DAYS)], strict=True))
    parts = []
    for first, end in bounds:
        overlap = draw(st.integers(0, 2))
        parts.append(
            Part(
                first=first,
                last=min(end - 1 + overlap, len(DAYS) - 1),
                concurrency=draw(st.integers(1, 4)),
                steps_before_next=draw(st.integers(0, 2)),
            )
        )
    return draw(st.permutations(parts))


async def create_past(sessions: Sessions, past: list[Past]) -> None:
    for states, end in (
        ({Past.SEALED, Past.SEALED_THEN_FAILED}, RunState.SUCCEEDED),
        ({Past.FAILED, Past.SEALED_THEN_FAILED, Past.FAILED_THEN_PENDING}, RunState.FAILED),
    ):
        now = BEFORE if end is RunState.FAILED else BEFORE - timedelta(hours=1)
        async with sessions.begin() as session:
            for day, state in zip(DAYS, past, strict=True):
                if state in states:
                    await request_run(session, day=day, now=now)
        await finish_due_runs(sessions, now=now, final_state=end)
    async with sessions.begin() as session:
        for day, state in zip(DAYS, past, strict=True):
            if state in PENDING:
                await request_run(session, day=day, now=BEFORE)


async def count_builds(
    sessions: Sessions, past: list[Past], mode: BackfillMode, parts: list[Part]
) -> Counter[date]:
    """Return how often each date is built when the range is requested in these parts."""
    async with sessions.begin() as session:
        for table in ("backfills", "report_runs", "report_days"):
            await session.execute(text(f"DELETE FROM {table}"))
    await create_past(sessions, past)
    count: Counter[date] = Counter()
    for number, part in enumerate(parts):
        await request_backfill(
            sessions,
            DAYS[part.first],
            DAYS[part.last],
            mode=mode,
            concurrency=part.concurrency,
            now=NOW + timedelta(seconds=number),
        )
        for _ in range(part.steps_before_next):
            await advance_backfills(sessions, now=NOW + timedelta(seconds=number))
    now = NOW + timedelta(seconds=len(parts))
    count.update(await finish_backfills(sessions, now=now))
    count.update(run.report_date for run in await finish_due_runs(sessions, now=now))
    return count


@pytest.mark.usefixtures("no_runs")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    past=st.lists(st.sampled_from(Past), min_size=len(DAYS), max_size=len(DAYS)),
    mode=st.sampled_from(BackfillMode),
    parts=partitions(),
)
async def test_the_parts_build_what_the_whole_builds(
    sessions: Sessions, past: list[Past], mode: BackfillMode, parts: list[Part]
) -> None:
    whole = [Part(first=0, last=len(DAYS) - 1, concurrency=2, steps_before_next=0)]

    expected = {
        day: 1
        for day, state in zip(DAYS, past, strict=True)
        # A pending run is built in any case, once.
        if state in WANTED[mode] or state in PENDING
    }

    assert await count_builds(sessions, past, mode, whole) == expected
    assert await count_builds(sessions, past, mode, parts) == expected
