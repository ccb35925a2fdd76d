"""Measurement of benchmarks, and formatting of their results."""

import os
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

Operation = Callable[[], Awaitable[float]]
"""An operation that runs once and returns the duration of its measured part in seconds."""


async def measure_seconds(work: Awaitable[object]) -> float:
    """Await `work`, and return its duration in seconds."""
    started = perf_counter()
    await work
    return perf_counter() - started


@dataclass(frozen=True)
class Timings:
    """The seconds that each operation took, by round and name."""

    rounds: Sequence[Mapping[str, float]]

    def median(self, name: str) -> float:
        """Return the median seconds of the operation `name`."""
        return median(each[name] for each in self.rounds)

    def ratio(self, name: str, *, to: str) -> float:
        """Return the median, over the rounds, of the time of `name` divided by that of `to`."""
        return median(each[name] / each[to] for each in self.rounds)


async def run_interleaved(operations: Mapping[str, Operation], *, rounds: int) -> Timings:
    """Run each operation once per round, in alternating order, and return the timings.

    Interleaving spreads a slow period of the machine over all operations.
    """
    timings: list[dict[str, float]] = []
    for number in range(rounds):
        order = list(operations) if number % 2 == 0 else list(operations)[::-1]
        timings.append({name: await operations[name]() for name in order})
    return Timings(timings)


async def describe_environment(engine: AsyncEngine) -> str:
    """Return the versions, buffer size and core count of the measurement, in one line."""
    async with engine.connect() as connection:
        version = (await connection.execute(text("SHOW server_version"))).scalar_one()
        buffers = (await connection.execute(text("SHOW shared_buffers"))).scalar_one()
    python = platform.python_version()
    return f"Postgres {version}, shared_buffers {buffers}, Python {python}, {os.cpu_count()} cores"


def format_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a text table: the first column left-aligned, the others right-aligned."""
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


def format_milliseconds(value: float) -> str:
    """Return a duration, given in seconds, as milliseconds."""
    return f"{value * 1000:,.1f} ms"


def format_ratio(value: float) -> str:
    """Return a ratio with two decimal places, or none from 20 on."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.2f}"
