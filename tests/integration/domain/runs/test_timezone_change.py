"""Changes of the business time zone: what they rebuild, and what they refuse."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col, select

from daybook_domain.reports import business_timezone
from daybook_domain.reports.build import build_day
from daybook_domain.reports.business_day import business_day, local_date
from daybook_domain.reports.errors import TimezoneMismatch
from daybook_domain.runs import order_rebuilds, requests, timezone_change
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.runs.timezone_change import TimezoneChange
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.reports import (
    build_report,
    create_running_run,
    find_report_day,
    get_quantity_by_order,
)
from tests.support.factories.runs import list_all_runs
from tests.support.factories.shop import create_order, reset_shop
from tests.support.postgres import wait_for_blocked_transaction

FIRST = datetime(2026, 3, 27, tzinfo=UTC)
"""Two days before the clocks of Europe change, and three weeks after those of America."""

HOURS = 96
NOW = FIRST + timedelta(hours=HOURS + 1)


@pytest.fixture(autouse=True)
async def shop(engine: AsyncEngine) -> None:
    """Begin with a user, an address and a product, and no orders."""
    await reset_shop(engine)


async def record_zone(sessions: Sessions, timezone: str) -> None:
    async with sessions.begin() as session:
        await business_timezone.confirm(session, timezone)


async def place_orders(engine: AsyncEngine, instants: Sequence[datetime]) -> dict[int, datetime]:
    async with engine.begin() as connection:
        return {await create_order(connection, created_at=at, quantities=()): at for at in instants}


async def change(sessions: Sessions, timezone: str, *, now: datetime = NOW) -> TimezoneChange:
    async with sessions.begin() as session:
        return await timezone_change.change(session, timezone, now=now)


async def build_waiting_runs(engine: AsyncEngine, *, timezone: str) -> None:
    """Build all pending runs, as a worker in `timezone` does."""
    async with engine.begin() as connection:
        started = await connection.execute(
            text(
                "UPDATE report_runs SET state = 'running', fence = fence + 1"
                " WHERE state = 'pending' RETURNING id, report_date, fence"
            )
        )
    for run_id, day, fence in started.all():
        async with engine.begin() as connection:
            await build_day(
                connection, day=business_day(day, timezone=timezone), run_id=run_id, fence=fence
            )


async def count_reports(engine: AsyncEngine) -> dict[int, list[date]]:
    async with engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT order_id, array_agg(report_at) AS dates FROM reports GROUP BY order_id")
        )
        return {row.order_id: row.dates for row in rows}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("UTC", "America/New_York"),
        ("UTC", "Asia/Tokyo"),
        ("UTC", "Europe/Berlin"),
        ("Europe/Berlin", "UTC"),
        ("Asia/Kathmandu", "Australia/Lord_Howe"),
        ("UTC", "Pacific/Kiritimati"),
        ("Pacific/Pago_Pago", "Pacific/Kiritimati"),
        ("Pacific/Kiritimati", "Pacific/Pago_Pago"),
    ],
)
async def test_after_a_change_each_order_is_in_the_report_of_its_date_in_the_new_zone_only(
    engine: AsyncEngine, sessions: Sessions, before: str, after: str
) -> None:
    await record_zone(sessions, before)
    instants = [FIRST + timedelta(minutes=90 * n) for n in range(HOURS * 2 // 3)]
    orders = await place_orders(engine, instants)
    for day in {local_date(at, timezone=before) for at in instants}:
        await build_report(engine, business_day(day, timezone=before))

    changed = await change(sessions, after)
    await build_waiting_runs(engine, timezone=after)

    assert changed.before == before
    assert await count_reports(engine) == {
        order: [local_date(at, timezone=after)] for order, at in orders.items()
    }
    for day in changed.dates:
        kept = await find_report_day(engine, day)
        assert kept is not None
        assert kept.timezone == after


async def test_a_change_rebuilds_only_days_with_an_order_that_moves(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await record_zone(sessions, "UTC")
    noon = [FIRST + timedelta(days=n, hours=12) for n in range(4)]
    await place_orders(engine, [*noon, FIRST + timedelta(days=1, hours=23, minutes=30)])
    for n in range(4):
        await build_report(engine, business_day(FIRST.date() + timedelta(days=n), timezone="UTC"))

    changed = await change(sessions, "Europe/Berlin")

    assert changed.dates == [date(2026, 3, 28), date(2026, 3, 29)]
    assert [run.report_date for run in await list_all_runs(sessions) if run.state == "pending"] == [
        date(2026, 3, 28),
        date(2026, 3, 29),
    ]
    zones = [await find_report_day(engine, FIRST.date() + timedelta(days=n)) for n in range(4)]
    assert [day and day.timezone for day in zones] == [
        *("Europe/Berlin", "UTC", "UTC", "Europe/Berlin")
    ]


async def test_a_change_builds_an_absent_day_that_gains_a_reported_order_and_no_other(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await record_zone(sessions, "UTC")
    evening, unreported = FIRST + timedelta(hours=23), FIRST + timedelta(days=2, hours=23)
    await place_orders(engine, [evening, unreported])
    await build_report(engine, business_day(FIRST.date(), timezone="UTC"))

    changed = await change(sessions, "Asia/Tokyo")

    assert changed.dates == [date(2026, 3, 27), date(2026, 3, 28)]


async def test_a_preview_changes_nothing(engine: AsyncEngine, sessions: Sessions) -> None:
    await record_zone(sessions, "UTC")
    await place_orders(engine, [FIRST + timedelta(hours=23)])
    await build_report(engine, business_day(FIRST.date(), timezone="UTC"))
    before = await list_all_runs(sessions)

    async with sessions.begin() as session:
        planned = await timezone_change.preview(session, "Asia/Tokyo", now=NOW)
        assert await business_timezone.find(session) == "UTC"

    assert planned.dates == [date(2026, 3, 27), date(2026, 3, 28)]
    assert await list_all_runs(sessions) == before


async def test_a_day_that_has_not_ended_in_the_new_zone_is_provisional_again(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await record_zone(sessions, "UTC")
    await place_orders(engine, [FIRST + timedelta(hours=12), FIRST + timedelta(hours=1)])
    await build_report(engine, business_day(FIRST.date(), timezone="UTC"))
    sealed = await find_report_day(engine, FIRST.date())

    await change(sessions, "America/New_York", now=FIRST + timedelta(days=1, hours=1))

    day = await find_report_day(engine, FIRST.date())
    assert sealed is not None
    assert sealed.sealed_at is not None
    assert day is not None
    assert day.sealed_at is None


async def test_waiting_runs_are_of_the_new_zone_after_a_change(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await record_zone(sessions, "UTC")
    async with sessions.begin() as session:
        await requests.request(
            session,
            day=business_day(FIRST.date(), timezone="UTC"),
            trigger=RunTrigger.MANUAL,
            now=NOW,
        )

    await change(sessions, "Asia/Tokyo")

    assert [run.timezone for run in await list_all_runs(sessions)] == ["Asia/Tokyo"]
    await build_waiting_runs(engine, timezone="Asia/Tokyo")


async def test_requests_in_the_old_zone_are_refused_after_a_change(sessions: Sessions) -> None:
    await record_zone(sessions, "UTC")
    await change(sessions, "Asia/Tokyo")
    day = business_day(FIRST.date(), timezone="UTC")

    with pytest.raises(TimezoneMismatch, match=r"UTC.*Asia/Tokyo.*daybook timezone change UTC"):
        async with sessions.begin() as session:
            await requests.request(session, day=day, trigger=RunTrigger.MANUAL, now=NOW)

    assert await list_all_runs(sessions) == []


async def test_a_request_that_has_not_committed_is_of_the_new_zone_after_the_change(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await record_zone(sessions, "UTC")
    async with sessions.begin() as session:
        day = business_day(FIRST.date(), timezone="UTC")
        await requests.request(session, day=day, trigger=RunTrigger.MANUAL, now=NOW)
        changing = asyncio.create_task(change(sessions, "Asia/Tokyo"))
        await wait_for_blocked_transaction(engine)
    await changing

    assert [run.timezone for run in await list_all_runs(sessions)] == ["Asia/Tokyo"]


async def test_a_build_is_refused_if_the_zone_is_changed_before_it_commits(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await record_zone(sessions, "UTC")
    await place_orders(engine, [FIRST])
    day = business_day(FIRST.date(), timezone="UTC")
    run_id = await create_running_run(engine, day.date)
    async with engine.connect() as holder:
        # The build has read the zone, and waits to write the row of its day.
        await holder.execute(text("LOCK TABLE report_days IN SHARE MODE"))
        building = asyncio.create_task(_build(engine, FIRST.date(), "UTC", run_id=run_id))
        await wait_for_blocked_transaction(engine)
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE business_timezone SET timezone = 'Asia/Tokyo'"))
        await holder.rollback()

    with pytest.raises(TimezoneMismatch):
        await building

    assert await get_quantity_by_order(engine, FIRST.date()) == {}
    assert await find_report_day(engine, FIRST.date()) is None


async def _build(engine: AsyncEngine, day: date, timezone: str, *, run_id: object) -> None:
    async with engine.begin() as connection:
        await build_day(
            connection,
            day=business_day(day, timezone=timezone),
            run_id=run_id,  # type: ignore[arg-type]
            fence=1,
        )


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO business_timezone (is_only, timezone) VALUES (true, 'Asia/Tokyo')",
        "UPDATE report_runs SET timezone = 'Asia/Tokyo'",
    ],
)
async def test_a_build_in_another_zone_than_that_of_its_run_or_of_business_days_is_refused(
    engine: AsyncEngine, statement: str
) -> None:
    run_id = await create_running_run(engine, FIRST.date())
    async with engine.begin() as connection:
        await connection.execute(text(statement))

    with pytest.raises(TimezoneMismatch, match=r"UTC.*Asia/Tokyo"):
        await _build(engine, FIRST.date(), "UTC", run_id=run_id)

    assert await find_report_day(engine, FIRST.date()) is None


async def test_a_rebuild_after_a_change_of_an_order_has_the_current_zone(
    engine: AsyncEngine, sessions: Sessions
) -> None:
    await record_zone(sessions, "UTC")
    ((order, created_at),) = (await place_orders(engine, [FIRST])).items()
    await build_report(engine, business_day(FIRST.date(), timezone="UTC"))

    async with sessions.begin() as session:
        await order_rebuilds.request_rebuild(
            session, order_id=order, created_at=created_at, reason="changed"
        )

    async with sessions() as session:
        waiting = select(ReportRun).where(col(ReportRun.state) == RunState.PENDING)
        assert [run.timezone for run in (await session.exec(waiting)).all()] == ["UTC"]
