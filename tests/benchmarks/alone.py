"""How long does one way take in a process of its own, and how much does that process grow?

`python -m tests.benchmarks.alone WAY DATE [RUN]` prints seconds and megabytes; the database is
`DAYBOOK_DATABASE_URL`.
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
from tests.benchmarks import ways
from tests.support.bench import seconds

NOBODY = UUID(int=0)


async def alone(
    url: str, *, way: str, day: BusinessDay, run_id: UUID = NOBODY
) -> tuple[float, float]:
    """Return the seconds that `way` takes, and by how many megabytes the peak memory grows."""
    engine = create_engine(url, application="bench")
    await _warm_up(engine)
    before = _peak_megabytes()
    taken = await seconds(_start(way, engine, day, run_id))
    await engine.dispose()
    return taken, _peak_megabytes() - before


def _start(
    way: str, engine: AsyncEngine, day: BusinessDay, run_id: UUID
) -> Coroutine[Any, Any, object]:
    if way == "ours":
        return ways.ours(engine, day, run_id)
    return {"naive": ways.naive, "add_all": ways.add_all}[way](engine, day)


async def _warm_up(engine: AsyncEngine) -> None:
    """Do each thing once on a day without orders, so that what is loaded once is not counted."""
    empty = business_day(date(1999, 1, 1), timezone="UTC")
    await ways.naive(engine, empty)
    await ways.add_all(engine, empty)
    with contextlib.suppress(LeaseLost):
        await ways.ours(engine, empty, NOBODY)


def _peak_megabytes() -> float:
    # On Linux ru_maxrss begins with the parent's: it survives exec.
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    taken, grown = asyncio.run(
        alone(
            os.environ["DAYBOOK_DATABASE_URL"],
            way=sys.argv[1],
            day=business_day(date.fromisoformat(sys.argv[2]), timezone="UTC"),
            run_id=UUID(sys.argv[3]),
        )
    )
    print(taken, grown)
