"""One bad row never stops the others: a row of each table has values that code trips over.

Every value passes the constraints of its table. The healthy rows beside it proceed in every loop
and list, and the bad row is reported: on itself, as a finding, or in the log.
"""

import asyncio
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings
from daybook_domain import row_errors
from daybook_domain.runs import leases, reconciliation
from daybook_domain.schedules import lateness, queries, retention
from daybook_domain.schedules.audit import find_problems
from daybook_domain.schedules.failure_pauses import pause_after_failure
from daybook_platform.postgres.sessions import Sessions
from daybook_worker.dead_letter_retries import DeadLetterRetrier
from daybook_worker.metrics import WorkerMetrics
from daybook_worker.settings import WorkerSettings
from tests.integration.api.conftest import serve
from tests.support.factories.backfills import advance_backfills, request_backfill, seal_day
from tests.support.factories.runs import claim_due_runs, claim_run
from tests.support.factories.schedules import (
    DAY,
    MIDNIGHT,
    create_schedule,
    define_daily_schedule,
    get_schedule,
    materialize_due_fires,
    update_schedule_row,
)
from tests.support.factories.shop import reset_shop
from tests.support.waiting import wait_until

NOW = MIDNIGHT + timedelta(hours=1)

ORDER = "INSERT INTO orders (user_id, delivery_address_id, status, total_price, created_at)"
PRODUCT = b'{"name": "tea", "price": 3.5, "stock_quantity": 10}'

SCHEDULES = {
    "unknown zone": "timezone = 'Mars/Olympus'",
    "path as zone": "timezone = '../etc/passwd'",
    "malformed cron": "cron = 'nonsense'",
    "cron that never fires": "cron = '0 0 31 2 *'",
    "one-shot without an instant": "cron = '@at nonsense'",
    "date before the calendar": "report_offset_days = -1000000",
    "offset that overflows": "report_offset_days = 2147483647",
    "due since year 1": "next_fire_at = '0001-01-01 00:00Z'",
    "due since before Christ": "next_fire_at = '4000-01-01 00:00Z BC'",
    "due since ever": "next_fire_at = '-infinity'",
    "due at the end of the calendar": "next_fire_at = '9999-12-31 23:59Z', cron = '* * * * *'",
    "due after the calendar": "next_fire_at = '20000-01-01 00:00Z'",
    "huge jitter of a one-shot": "cron = '@at 2026-03-01T23:30:00+00:00', jitter = '900000 years'",
    "huge jitter": "jitter = '170000000 years'",
    "huge window": "catchup_window = '900000 years', catchup = 'none'",
    "window beyond Python": "catchup_window = '170000000 years'",
    "defined after the calendar": "defined_at = '20000-01-01 00:00Z'",
    "version at its limit": "version = 2147483647",
}
RUNS = {
    "date before the calendar": "report_date = '0001-01-01'",
    "date before Christ": "report_date = '4000-01-01 BC'",
    "date after the calendar": "report_date = '20000-01-01'",
    "fence at its limit": "fence = 9223372036854775807",
    "attempts at their limit": "attempt = 2147483647, max_attempts = 2147483647",
    "negative attempts": "attempt = -2147483648",
    "fire of no time": "scheduled_for = '-infinity', schedule_id = (SELECT min(id) FROM schedules)",
    "unknown worker": "worker = NULL, started_at = NULL",
}
BACKFILLS = {
    "dates before the calendar": "from_date = '1026-01-01', next_date = '1026-01-01'",
    "dates before Christ": "from_date = '4000-01-01 BC', next_date = '4000-01-01 BC'",
    "dates after the calendar": "next_date = '20000-01-01', to_date = '20000-01-02'",
    "end of the calendar": "next_date = '9999-12-31', to_date = '9999-12-31'",
    "huge concurrency": "concurrency = 2147483647",
}
DAYS = {
    "after the calendar": "report_date = '9999-12-31'",
    "in the future": "report_date = '2026-04-01'",
    "beyond Python": "report_date = '20000-01-01'",
    "sealed before Christ": "sealed_at = '4000-01-01 00:00Z BC'",
    "revision at its limit": "revision = 2147483647",
}
LETTERS = {
    "unknown queue": "queue = 'nonsense'",
    "headers that are no object": "headers = '[1]'",
    "binary body": r"body = '\x00ff'",
    "attempts at their limit": "attempts = 2147483647",
    "negative attempts": "attempts = -2147483648",
    "failed after the calendar": "last_failed_at = '20000-01-01 00:00Z'",
}
ORDERS = {
    at: f"created_at = '{at}'"
    for at in ("0001-01-01 00:00Z", "4000-01-01 00:00Z BC", "9999-12-31 23:59Z", "-infinity")
}
POISONS = {
    "schedules": SCHEDULES,
    "report_runs": RUNS,
    "backfills": BACKFILLS,
    "report_days": DAYS,
    "dead_letters": LETTERS,
    "orders": ORDERS,
}


_COUNT_REDRIVEN = (
    "SELECT count(*) FROM dead_letters WHERE message_id = 'healthy' AND state = 'redriven'"
)


LISTS = (
    "/schedules",
    "/report/runs",
    "/report/backfills",
    "/report/days?from=2026-02-20",
    "/dead-letters",
    "/orders",
)

UNPROCESSED = {
    "schedules": "SELECT name FROM schedules WHERE name LIKE 'victim%' AND last_fire_at IS NULL",
    "report_runs": "SELECT CAST(id AS text) FROM report_runs"
    " WHERE requested_by LIKE 'victim%' AND state = 'running'",
    "backfills": "SELECT CAST(id AS text) FROM backfills AS b WHERE reason LIKE '%victim%'"
    " AND NOT EXISTS (SELECT FROM backfill_days WHERE backfill_id = b.id)",
    "dead_letters": "SELECT 'dead letter ' || id FROM dead_letters"
    " WHERE message_id LIKE 'victim%' AND state = 'waiting'",
}
"""Queries of the bad rows that were not processed, as reports name them."""


@dataclass(frozen=True)
class Shop:
    """A healthy and a bad row of each table; every loop has something to do with each."""

    sessions: Sessions
    engine: AsyncEngine

    async def open(self) -> None:
        await reset_shop(self.engine)
        await define_daily_schedule(self.sessions)
        await update_schedule_row(self.sessions, created_at=MIDNIGHT - 30 * DAY)
        await self.add_rows("healthy", 0)
        await self.execute(
            # Ended long ago, to be pruned.
            "INSERT INTO report_runs (id, report_date, trigger, state, priority, attempt,"
            " max_attempts, available_at, finished_at, fence, schedule_id, scheduled_for)"
            " SELECT gen_random_uuid(), '2020-01-01', 'schedule', 'succeeded', 0, 1, 5,"
            " '2020-01-02', '2020-01-02', 1, id, '2020-01-02' FROM schedules"
        )

    async def add_rows(self, name: str, number: int) -> None:
        """Add a row to each table, with `name` and with dates that depend on `number`."""
        day = date(2026, 2, 25) - number * DAY
        await create_schedule(self.sessions, name, cron="30 23 * * *")
        await update_schedule_row(
            self.sessions, name, next_fire_at=MIDNIGHT - timedelta(minutes=30)
        )
        await claim_run(self.sessions, day=day - 50 * DAY)
        await request_backfill(self.sessions, day - 100 * DAY, day - 100 * DAY, reason=name)
        async with self.sessions.begin() as session:
            await seal_day(session, day, now=MIDNIGHT)
        await self.execute(
            f"UPDATE report_runs SET requested_by = '{name}' WHERE requested_by IS NULL",
            f"{ORDER} VALUES (1, 1, 'pending', {number}, '2026-02-28 12:00Z')",
            "INSERT INTO dead_letters (queue, message_id, body, headers, reason_code, reason,"
            " attempts, begun, first_failed_at, last_failed_at, state, available_at, version)"
            f" VALUES ('product', '{name}', '{PRODUCT.decode()}', '{{}}', 'x', 'x', 1, 0,"
            " now(), now(), 'waiting', now(), 1)",
        )

    async def poison(self, table: str, assignments: str, *, number: int) -> None:
        """Add rows, and change the one of `table` to a value that code trips over."""
        name = f"victim-{number:02}"
        await self.add_rows(name, number)
        victim = {
            "schedules": f"name = '{name}'",
            "report_runs": f"requested_by = '{name}'",
            "backfills": f"reason = '{name}'",
            "report_days": f"report_date = DATE '2026-02-25' - {number}",
            "dead_letters": f"message_id = '{name}'",
            "orders": f"total_price = {number}",
        }
        await self.execute(f"UPDATE {table} SET {assignments} WHERE {victim[table]}")

    async def execute(self, *statements: str) -> None:
        async with self.engine.begin() as connection:
            for statement in statements:
                # Not prepared, because these texts contain colons.
                await connection.exec_driver_sql(statement)

    async def count(self, query: str) -> int:
        async with self.engine.connect() as connection:
            return int(await connection.scalar(text(query)) or 0)

    async def fetch(self, query: str) -> list[str]:
        async with self.engine.connect() as connection:
            return [str(row) for row in await connection.scalars(text(query))]

    async def work(self) -> None:
        """Do one round of what schedulers and workers do, each in its own transaction."""
        await materialize_due_fires(self.sessions, now=NOW, limit=100)
        async with self.sessions.begin() as session:
            pause = partial(pause_after_failure, session, now=NOW)
            await leases.reap(session, now=NOW, limit=100, on_reaped=pause)
        async with self.sessions.begin() as session:
            await reconciliation.reconcile(
                session,
                first=date(2026, 2, 1),
                timezone="UTC",
                now=NOW,
                settle=timedelta(minutes=2),
                interval=timedelta(hours=1),
            )
        await advance_backfills(self.sessions, now=NOW)
        async with self.sessions.begin() as session:
            await retention.prune(session, before=NOW - 40 * DAY, limit=100)
        async with self.sessions.begin() as session:
            await queries.get_next_due_at(session, after=NOW)
            await claim_due_runs(session, now=NOW, limit=500)
        await self._retry_dead_letters()

    async def _retry_dead_letters(self) -> None:
        settings = WorkerSettings.model_validate(
            {"database_url": "postgresql://unused", "broker_url": "amqp://unused"}
        )
        retrier = DeadLetterRetrier(settings, sessions=self.sessions, metrics=WorkerMetrics())
        task = asyncio.create_task(retrier.run())

        async def is_redriven() -> bool:
            return await self.count(_COUNT_REDRIVEN) == 1

        await wait_until(is_redriven, what="the retry of the healthy dead letter")
        retrier.stop()
        await task

    async def assert_healthy_rows_proceeded(self) -> None:
        healthy = await get_schedule(self.sessions, "healthy")
        assert (healthy.last_fire_at, healthy.error) == (MIDNIGHT - timedelta(minutes=30), None)
        for query in (
            "requested_by = 'healthy' AND state = 'queued'",
            "report_date = '2026-02-25' AND trigger = 'reconcile' AND state = 'queued'",
            "report_date = DATE '2026-02-25' - 100 AND trigger = 'backfill' AND state = 'queued'",
        ):
            assert await self.count(f"SELECT count(*) FROM report_runs WHERE {query}") == 1, query
        old = "SELECT count(*) FROM report_runs JOIN schedules AS s ON s.id = schedule_id"
        assert await self.count(f"{old} WHERE name = 'healthy' AND report_date = '2020-01-01'") == 0

    async def list_problems(self) -> list[str]:
        """Return what schedules and `daybook check` report about bad rows."""
        async with self.sessions() as session:
            late = await lateness.list_late_days(
                session, timezone="UTC", late_after=timedelta(minutes=15), now=NOW
            )
            found = await find_problems(session, since=NOW - 30 * DAY, now=NOW + DAY)
        assert late, "yesterday's report is late, whatever the bad row"
        return [f"{finding.subject} {finding.problem}" for finding in found]


@pytest.mark.parametrize("table", POISONS)
async def test_one_bad_row_never_stops_the_others(
    sessions: Sessions, engine: AsyncEngine, postgres_url: str, table: str
) -> None:
    shop = Shop(sessions, engine)
    await shop.open()
    for number, assignments in enumerate(POISONS[table].values(), start=1):
        await shop.poison(table, assignments, number=number)
    row_errors.forget()

    with capture_logs() as logs:
        await shop.work()
        reports = [*await shop.list_problems(), *(str(line.get("row", "")) for line in logs)]

    await shop.assert_healthy_rows_proceeded()
    if table in UNPROCESSED:
        unreported = [
            row
            for row in await shop.fetch(UNPROCESSED[table])
            if not any(row in report for report in reports)
        ]
        assert unreported == []
    settings = ApiSettings.model_validate({"database_url": postgres_url})
    async with serve(build_app(settings)) as api:
        answers = [await api.get(path) for path in LISTS]
    assert [answer.text for answer in answers if answer.status_code != 200] == []
