"""How is a benchmark measured, and how does it print its numbers?"""

import os
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

Way = Callable[[], Awaitable[float]]
"""Does something once and returns how many seconds the part that counts took."""


async def seconds(work: Awaitable[object]) -> float:
    """Return how long `work` takes."""
    begun = perf_counter()
    await work
    return perf_counter() - begun


@dataclass(frozen=True)
class Taken:
    """The seconds that each way took, round by round."""

    rounds: Sequence[Mapping[str, float]]

    def median(self, way: str) -> float:
        """Return the median seconds of `way`."""
        return median(each[way] for each in self.rounds)

    def ratio(self, way: str, *, to: str) -> float:
        """Return the median of how many times as long as `to` in the same round `way` took."""
        return median(each[way] / each[to] for each in self.rounds)


async def interleaved(ways: Mapping[str, Way], *, rounds: int) -> Taken:
    """Return what each way took in `rounds` rounds that do each of them once, to and fro.

    Taking turns lets a slow minute of the machine fall on all ways alike.
    """
    taken: list[dict[str, float]] = []
    for number in range(rounds):
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        taken.append({name: await ways[name]() for name in order})
    return Taken(taken)


async def setting(engine: AsyncEngine) -> str:
    """Return in one line on what the numbers were taken."""
    async with engine.connect() as connection:
        version = (await connection.execute(text("SHOW server_version"))).scalar_one()
        buffers = (await connection.execute(text("SHOW shared_buffers"))).scalar_one()
    python = platform.python_version()
    return f"Postgres {version}, shared_buffers {buffers}, Python {python}, {os.cpu_count()} cores"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of text: the first column to the left, numbers to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    printed = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(len(line) for line in printed)
    return "\n".join(["", title, rule, printed[0], rule, *printed[1:], rule])


def milliseconds(value: float) -> str:
    """Return a time as text, in milliseconds."""
    return f"{value * 1000:,.1f} ms"


def ratio(value: float) -> str:
    """Return a ratio as text: two digits after the point, none when it is large."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"
