"""Is a backfill of a range the same as those of its parts, wherever it is cut, and in any order?"""

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
from daybook_platform.postgres.engine import Sessions
from tests.support import runs
from tests.support.backfills import NOW, advance, ask, march, to_its_end, work

BEFORE = NOW - timedelta(hours=1)
DAYS = [march(day) for day in range(1, 8)]


class Was(StrEnum):
    """What had become of a date before anybody asked for the range."""

    ABSENT = "absent"
    SEALED = "sealed"
    FAILED = "failed"
    SEALED_THEN_FAILED = "sealed, then failed"
    WAITING = "waiting"
    FAILED_THEN_WAITING = "failed, then waiting"


WANTED: Mapping[BackfillMode, frozenset[Was]] = {
    BackfillMode.ABSENT: frozenset(Was) - {Was.SEALED, Was.SEALED_THEN_FAILED},
    BackfillMode.FAILED: frozenset({Was.FAILED, Was.SEALED_THEN_FAILED, Was.FAILED_THEN_WAITING}),
    BackfillMode.ALL: frozenset(Was),
}
WAITING = {Was.WAITING, Was.FAILED_THEN_WAITING}


@dataclass(frozen=True)
class Part:
    """One of the backfills by which the whole range is asked for."""

    first: int
    last: int
    concurrency: int
    head_start: int
    """How often the scheduler comes round before the next part is asked for."""


@st.composite
def partitions(draw: st.DrawFn) -> list[Part]:
    """Return parts that cover all of `DAYS`, which may overlap, in any order."""
    cuts = draw(st.lists(st.integers(1, len(DAYS) - 1), unique=True).map(sorted))
    bounds = list(zip([0, *cuts], [*cuts, len(DAYS)], strict=True))
    parts = []
    for first, end in bounds:
        longer = draw(st.integers(0, 2))
        parts.append(
            Part(
                first=first,
                last=min(end - 1 + longer, len(DAYS) - 1),
                concurrency=draw(st.integers(1, 4)),
                head_start=draw(st.integers(0, 2)),
            )
        )
    return draw(st.permutations(parts))


async def bring_about(sessions: Sessions, past: list[Was]) -> None:
    for states, end in (
        ({Was.SEALED, Was.SEALED_THEN_FAILED}, RunState.SUCCEEDED),
        ({Was.FAILED, Was.SEALED_THEN_FAILED, Was.FAILED_THEN_WAITING}, RunState.FAILED),
    ):
        now = BEFORE if end is RunState.FAILED else BEFORE - timedelta(hours=1)
        async with sessions.begin() as session:
            for day, was in zip(DAYS, past, strict=True):
                if was in states:
                    await runs.request(session, day=day, now=now)
        await work(sessions, now=now, ends=end)
    async with sessions.begin() as session:
        for day, was in zip(DAYS, past, strict=True):
            if was in WAITING:
                await runs.request(session, day=day, now=BEFORE)


async def built(
    sessions: Sessions, past: list[Was], mode: BackfillMode, parts: list[Part]
) -> Counter[date]:
    """Return how often each date is built when the range is asked for in these parts."""
    async with sessions.begin() as session:
        for table in ("backfills", "report_runs", "report_days"):
            await session.execute(text(f"DELETE FROM {table}"))
    await bring_about(sessions, past)
    count: Counter[date] = Counter()
    for number, part in enumerate(parts):
        await ask(
            sessions,
            DAYS[part.first],
            DAYS[part.last],
            mode=mode,
            concurrency=part.concurrency,
            now=NOW + timedelta(seconds=number),
        )
        for _ in range(part.head_start):
            await advance(sessions, now=NOW + timedelta(seconds=number))
    now = NOW + timedelta(seconds=len(parts))
    count.update(await to_its_end(sessions, now=now))
    count.update(run.report_date for run in await work(sessions, now=now))
    return count


@pytest.mark.usefixtures("no_runs")
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    past=st.lists(st.sampled_from(Was), min_size=len(DAYS), max_size=len(DAYS)),
    mode=st.sampled_from(BackfillMode),
    parts=partitions(),
)
async def test_the_parts_build_what_the_whole_builds(
    sessions: Sessions, past: list[Was], mode: BackfillMode, parts: list[Part]
) -> None:
    whole = [Part(first=0, last=len(DAYS) - 1, concurrency=2, head_start=0)]

    expected = {
        day: 1
        for day, was in zip(DAYS, past, strict=True)
        # What waited is built in any case, once.
        if was in WANTED[mode] or was in WAITING
    }

    assert await built(sessions, past, mode, whole) == expected
    assert await built(sessions, past, mode, parts) == expected
