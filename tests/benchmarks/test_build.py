"""Duration of builds, relative to the lower limit `L` of a build.

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
from daybook_platform.postgres.engine import create_engine
from tests.benchmarks import build_variants, days
from tests.benchmarks.measurement import (
    Operation,
    describe_environment,
    format_milliseconds,
    format_ratio,
    format_table,
    measure_seconds,
    run_interleaved,
)
from tests.support.factories.reports import create_running_run
from tests.support.postgres import migrated_database

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

LARGE = os.environ.get("DAYBOOK_BENCH_LARGE") == "1"
SIZES = [10_000, 100_000, *([1_000_000] if LARGE else [])]
ROUNDS = {10_000: 15, 100_000: 7, 1_000_000: 3}
ORM_UP_TO = 100_000
FAR_ID = 1_000_000_000


class BuildBench:
    """A database with history, and the measured operations on it."""

    def __init__(self, url: str, engine: AsyncEngine) -> None:
        self.url = url
        self.engine = engine

    async def start_run(self, on: date) -> UUID:
        return await create_running_run(self.engine, on)

    def build(self, day: BusinessDay, *, delete: bool) -> Operation:
        async def way() -> float:
            if delete:
                await days.delete_report(self.engine, day.date)
            run_id = await self.start_run(day.date)
            return await measure_seconds(build_variants.daybook(self.engine, day, run_id))

        return way

    def limit(self, day: BusinessDay) -> Operation:
        async def way() -> float:
            await days.delete_report(self.engine, day.date)
            return await measure_seconds(build_variants.limit(self.engine, day))

        return way

    def read(self, day: BusinessDay) -> Operation:
        async def way() -> float:
            return await measure_seconds(build_variants.read(self.engine, day))

        return way

    def build_with_late_order(self, day: BusinessDay) -> Operation:
        build = self.build(day, delete=False)

        async def way() -> float:
            async with self.engine.begin() as connection:
                await days.add_late_order(connection, day)
            return await build()

        return way

    async def measure_in_process(self, variant: str, day: BusinessDay) -> tuple[float, float]:
        """Return seconds and memory growth in megabytes of one build in a new process."""
        await days.delete_report(self.engine, day.date)
        run_id = await self.start_run(day.date)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.benchmarks.build_process"),
            *(variant, day.date.isoformat(), str(run_id)),
            env={**os.environ, "DAYBOOK_DATABASE_URL": self.url},
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await child.communicate()
        assert child.returncode == 0
        taken, grown = map(float, printed.split())
        return taken, grown


@asynccontextmanager
async def _created(
    server_url: str, *, name: str, history: int, history_orders: int
) -> AsyncIterator[BuildBench]:
    async with migrated_database(server_url, name=f"daybook_bench_{name}_{os.getpid()}") as url:
        engine = create_engine(url, application="bench")
        await days.prepare(engine)
        await days.add_history(engine, days=history, orders=history_orders)
        yield BuildBench(url, engine)
        await engine.dispose()


@pytest.fixture(scope="module")
async def small(postgres_server_url: str) -> AsyncIterator[BuildBench]:
    """Yield a shop with five days of history."""
    async with _created(
        postgres_server_url, name="five", history=5, history_orders=10_000
    ) as bench:
        yield bench


@pytest.fixture(scope="module")
async def sized(small: BuildBench) -> dict[int, BusinessDay]:
    """Return a day of each size; just written, never vacuumed, without statistics."""
    return {
        size: await days.add_day(
            small.engine, days.NEWEST - timedelta(days=place), orders=size, reported=False
        )
        for place, size in enumerate(SIZES)
    }


async def test_the_first_build_of_a_day_is_compared_with_the_lower_limit(
    small: BuildBench, sized: dict[int, BusinessDay]
) -> None:
    rows = []
    for state in ("just written", "vacuumed"):
        if state == "vacuumed":
            await days.vacuum(small.engine)
        for size, day in sized.items():
            await build_variants.precompute(small.engine, day)
            taken = await run_interleaved(
                {"limit": small.limit(day), "daybook": small.build(day, delete=True)},
                rounds=ROUNDS[size],
            )
            rows.append(
                [
                    f"{size:,} orders, {state}",
                    format_milliseconds(taken.median("limit")),
                    format_milliseconds(taken.median("daybook")),
                    format_ratio(taken.ratio("daybook", to="limit")),
                ]
            )
    print(
        format_table(
            await describe_environment(small.engine),
            ["first build", "L", "daybook", "daybook / L"],
            rows,
        )
    )


async def test_the_orm_variants_are_compared_with_the_lower_limit(
    small: BuildBench, sized: dict[int, BusinessDay]
) -> None:
    rows = []
    for size, day in sized.items():
        await build_variants.precompute(small.engine, day)
        taken = await run_interleaved(
            {"limit": small.limit(day), "daybook": small.build(day, delete=True)}, rounds=3
        )
        least = taken.median("limit")
        for way in ("naive", "add_all", "daybook"):
            if way != "daybook" and size > ORM_UP_TO:
                rows.append([f"{way}, {size:,} orders", "-", "-", "-"])
                continue
            once, grown = await small.measure_in_process(way, day)
            time = taken.median("daybook") if way == "daybook" else once
            rows.append(
                [
                    f"{way}, {size:,} orders",
                    format_milliseconds(time),
                    format_ratio(time / least),
                    f"{grown:.1f} MB",
                ]
            )
    title = f"{await describe_environment(small.engine)}; other variants: one run, in a new process"
    print(format_table(title, ["variant", "time", "/ L", "memory growth"], rows))


async def test_rebuilds_are_compared_with_reading_the_aggregate(
    small: BuildBench, sized: dict[int, BusinessDay]
) -> None:
    rows = []
    for size, day in sized.items():
        await small.build(day, delete=True)()
        await days.vacuum(small.engine)
        taken = await run_interleaved(
            {
                "read": small.read(day),
                "unchanged": small.build(day, delete=False),
                "late": small.build_with_late_order(day),
            },
            rounds=ROUNDS[size],
        )
        async with small.engine.begin() as connection:
            await days.add_late_order(connection, day, order_id=FAR_ID + size)
        await small.build(day, delete=False)()
        far = await run_interleaved({"far": small.build(day, delete=False)}, rounds=ROUNDS[size])
        rows.append(
            [
                f"{size:,} orders",
                format_milliseconds(taken.median("read")),
                format_ratio(taken.ratio("unchanged", to="read")),
                format_ratio(taken.ratio("late", to="unchanged")),
                format_ratio(far.median("far") / taken.median("unchanged")),
            ]
        )
    header = [
        "rebuild",
        "reading the aggregate",
        "unchanged / reading",
        "a late order / unchanged",
        "one distant id / unchanged",
    ]
    print(format_table(await describe_environment(small.engine), header, rows))


async def test_a_build_is_compared_next_to_five_and_365_days_of_history(
    postgres_server_url: str, small: BuildBench, sized: dict[int, BusinessDay]
) -> None:
    size = SIZES[0]
    async with _created(postgres_server_url, name="year", history=365, history_orders=1000) as year:
        day = await days.add_day(year.engine, days.NEWEST, orders=size, reported=False)
        await days.vacuum(year.engine)
        taken = await run_interleaved(
            {
                "five": small.build(sized[size], delete=True),
                "year": year.build(day, delete=True),
                "five again": small.build(sized[size], delete=False),
                "year again": year.build(day, delete=False),
            },
            rounds=ROUNDS[size],
        )
    rows = [
        [
            name,
            format_milliseconds(taken.median(f"five{again}")),
            format_milliseconds(taken.median(f"year{again}")),
            format_ratio(taken.ratio(f"year{again}", to=f"five{again}")),
        ]
        for name, again in (("first build", ""), ("unchanged", " again"))
    ]
    title = (
        f"{await describe_environment(small.engine)}; a day of {size:,} orders next to other days"
    )
    print(format_table(title, ["build", "next to 5", "next to 365", "365 / 5"], rows))
