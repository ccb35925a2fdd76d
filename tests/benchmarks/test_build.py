"""How fast is a day built, measured against the least that any build has to do?

`DAYBOOK_BENCH_LARGE=1` adds a day of a million orders.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.business_day import BusinessDay
from daybook_platform.postgres import migrate
from daybook_platform.postgres.engine import create_engine
from tests.benchmarks import days, ways
from tests.support.bench import Way, interleaved, milliseconds, ratio, seconds, setting, table
from tests.support.databases import fresh_database
from tests.support.shop import start_run

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

LARGE = os.environ.get("DAYBOOK_BENCH_LARGE") == "1"
SIZES = [10_000, 100_000, *([1_000_000] if LARGE else [])]
ROUNDS = {10_000: 15, 100_000: 7, 1_000_000: 3}
ORM_UP_TO = 100_000
FAR_ID = 1_000_000_000


class Lab:
    """A database of its own, filled for benchmarks."""

    def __init__(self, url: str, engine: AsyncEngine) -> None:
        self.url = url
        self.engine = engine

    async def start_run(self, on: date) -> UUID:
        return await start_run(self.engine, on)

    def build(self, day: BusinessDay, *, forget: bool) -> Way:
        async def way() -> float:
            if forget:
                await days.forget_report(self.engine, day.date)
            run_id = await self.start_run(day.date)
            return await seconds(ways.ours(self.engine, day, run_id))

        return way

    def limit(self, day: BusinessDay) -> Way:
        async def way() -> float:
            await days.forget_report(self.engine, day.date)
            return await seconds(ways.limit(self.engine, day))

        return way

    def read(self, day: BusinessDay) -> Way:
        async def way() -> float:
            return await seconds(ways.read(self.engine, day))

        return way

    def build_with_late_order(self, day: BusinessDay) -> Way:
        build = self.build(day, forget=False)

        async def way() -> float:
            async with self.engine.begin() as connection:
                await days.add_late_order(connection, day)
            return await build()

        return way

    async def alone(self, way: str, day: BusinessDay) -> tuple[float, float]:
        """Return seconds and megabytes grown of one build in a fresh process."""
        await days.forget_report(self.engine, day.date)
        run_id = await self.start_run(day.date)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.benchmarks.alone"),
            *(way, day.date.isoformat(), str(run_id)),
            env={**os.environ, "DAYBOOK_DATABASE_URL": self.url},
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await child.communicate()
        assert child.returncode == 0
        taken, grown = map(float, printed.split())
        return taken, grown


@asynccontextmanager
async def _lab(
    server_url: str, *, name: str, history: int, history_orders: int
) -> AsyncIterator[Lab]:
    async with fresh_database(server_url, name=f"daybook_bench_{name}_{os.getpid()}") as url:
        await migrate.upgrade(url)
        engine = create_engine(url, application="bench")
        await days.prepare(engine)
        await days.add_history(engine, days=history, orders=history_orders)
        yield Lab(url, engine)
        await engine.dispose()


@pytest.fixture(scope="module")
async def small(postgres_server_url: str) -> AsyncIterator[Lab]:
    """A shop with five days of history."""
    async with _lab(postgres_server_url, name="five", history=5, history_orders=10_000) as lab:
        yield lab


@pytest.fixture(scope="module")
async def sized(small: Lab) -> dict[int, BusinessDay]:
    """A day of each size; only just written: never vacuumed, no statistics."""
    return {
        size: await days.add_day(
            small.engine, days.NEWEST - timedelta(days=place), orders=size, reported=False
        )
        for place, size in enumerate(SIZES)
    }


async def test_the_first_build_of_a_day(small: Lab, sized: dict[int, BusinessDay]) -> None:
    rows = []
    for state in ("just written", "vacuumed"):
        if state == "vacuumed":
            await days.vacuum(small.engine)
        for size, day in sized.items():
            await ways.precompute(small.engine, day)
            taken = await interleaved(
                {"limit": small.limit(day), "ours": small.build(day, forget=True)},
                rounds=ROUNDS[size],
            )
            rows.append(
                [
                    f"{size:,} orders, {state}",
                    milliseconds(taken.median("limit")),
                    milliseconds(taken.median("ours")),
                    ratio(taken.ratio("ours", to="limit")),
                ]
            )
    print(table(await setting(small.engine), ["first build", "L", "ours", "ours / L"], rows))


async def test_what_other_ways_cost(small: Lab, sized: dict[int, BusinessDay]) -> None:
    rows = []
    for size, day in sized.items():
        await ways.precompute(small.engine, day)
        taken = await interleaved(
            {"limit": small.limit(day), "ours": small.build(day, forget=True)}, rounds=3
        )
        least = taken.median("limit")
        for way in ("naive", "add_all", "ours"):
            if way != "ours" and size > ORM_UP_TO:
                rows.append([f"{way}, {size:,} orders", "-", "-", "-"])
                continue
            once, grown = await small.alone(way, day)
            time = taken.median("ours") if way == "ours" else once
            rows.append(
                [
                    f"{way}, {size:,} orders",
                    milliseconds(time),
                    ratio(time / least),
                    f"{grown:.1f} MB",
                ]
            )
    title = f"{await setting(small.engine)}; other ways: one run, in a process of its own"
    print(table(title, ["way", "time", "/ L", "process grew by"], rows))


async def test_building_again(small: Lab, sized: dict[int, BusinessDay]) -> None:
    rows = []
    for size, day in sized.items():
        await small.build(day, forget=True)()
        await days.vacuum(small.engine)
        taken = await interleaved(
            {
                "read": small.read(day),
                "unchanged": small.build(day, forget=False),
                "late": small.build_with_late_order(day),
            },
            rounds=ROUNDS[size],
        )
        async with small.engine.begin() as connection:
            await days.add_late_order(connection, day, order_id=FAR_ID + size)
        await small.build(day, forget=False)()
        far = await interleaved({"far": small.build(day, forget=False)}, rounds=ROUNDS[size])
        rows.append(
            [
                f"{size:,} orders",
                milliseconds(taken.median("read")),
                ratio(taken.ratio("unchanged", to="read")),
                ratio(taken.ratio("late", to="unchanged")),
                ratio(far.median("far") / taken.median("unchanged")),
            ]
        )
    header = [
        "built again",
        "reading the aggregate",
        "unchanged / reading",
        "a late order / unchanged",
        "one far id / unchanged",
    ]
    print(table(await setting(small.engine), header, rows))


async def test_a_year_of_history(
    postgres_server_url: str, small: Lab, sized: dict[int, BusinessDay]
) -> None:
    size = SIZES[0]
    async with _lab(postgres_server_url, name="year", history=365, history_orders=1000) as year:
        day = await days.add_day(year.engine, days.NEWEST, orders=size, reported=False)
        await days.vacuum(year.engine)
        taken = await interleaved(
            {
                "five": small.build(sized[size], forget=True),
                "year": year.build(day, forget=True),
                "five again": small.build(sized[size], forget=False),
                "year again": year.build(day, forget=False),
            },
            rounds=ROUNDS[size],
        )
    rows = [
        [
            name,
            milliseconds(taken.median(f"five{again}")),
            milliseconds(taken.median(f"year{again}")),
            ratio(taken.ratio(f"year{again}", to=f"five{again}")),
        ]
        for name, again in (("first build", ""), ("unchanged", " again"))
    ]
    title = f"{await setting(small.engine)}; a day of {size:,} orders beside other days"
    print(table(title, ["build", "beside 5", "beside 365", "365 / 5"], rows))
