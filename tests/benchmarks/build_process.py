"""Duration and memory growth of one build variant in a new process.

`python -m tests.benchmarks.build_process VARIANT DATE RUN` prints seconds and megabytes; the
database is `DAYBOOK_DATABASE_URL`.
"""

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import Coroutine
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.reports.business_day import BusinessDay, business_day
from daybook_domain.reports.errors import LeaseLost
from daybook_platform.postgres.engine import create_engine
from tests.benchmarks import build_variants
from tests.benchmarks.measurement import measure_seconds

NO_RUN = UUID(int=0)


async def measure(
    url: str, *, variant: str, day: BusinessDay, run_id: UUID = NO_RUN
) -> tuple[float, float]:
    """Return the seconds that `variant` takes, and the growth of peak memory in megabytes."""
    engine = create_engine(url, application="bench")
    await _warm_up(engine)
    before = _peak_megabytes()
    taken = await measure_seconds(_start(variant, engine, day, run_id))
    await engine.dispose()
    return taken, _peak_megabytes() - before


def _start(
    variant: str, engine: AsyncEngine, day: BusinessDay, run_id: UUID
) -> Coroutine[Any, Any, object]:
    if variant == "daybook":
        return build_variants.daybook(engine, day, run_id)
    return {"naive": build_variants.naive, "add_all": build_variants.add_all}[variant](engine, day)


async def _warm_up(engine: AsyncEngine) -> None:
    """Run each variant once on a day without orders, so that one-time costs are not counted."""
    empty = business_day(date(1999, 1, 1), timezone="UTC")
    await build_variants.naive(engine, empty)
    await build_variants.add_all(engine, empty)
    with contextlib.suppress(LeaseLost):
        await build_variants.daybook(engine, empty, NO_RUN)


def _peak_megabytes() -> float:
    # On Linux ru_maxrss starts at the value of the parent process: it survives exec.
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    taken, grown = asyncio.run(
        measure(
            os.environ["DAYBOOK_DATABASE_URL"],
            variant=sys.argv[1],
            day=business_day(date.fromisoformat(sys.argv[2]), timezone="UTC"),
            run_id=UUID(sys.argv[3]),
        )
    )
    print(taken, grown)
