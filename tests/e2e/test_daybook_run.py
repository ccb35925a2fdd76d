"""Does `daybook run` bring everything to life on a bare machine, and leave nothing behind?"""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from daybook_embedded.data_directory import scratch_folder
from daybook_embedded.ports import free_port
from daybook_platform.postgres.engine import async_url
from tests.support.processes import Service
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(180)

READY_SECONDS = 90


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that plays the checkout."""
    with scratch_folder() as folder:
        yield folder


@contextmanager
def daybook_run(folder: Path, *, port: int) -> Iterator[Service]:
    """Give a `daybook run` in `folder`, and end it."""
    environment = {"DAYBOOK_DATA_DIR": str(folder / "data"), "DAYBOOK_API_PORT": str(port)}
    log = folder / "run.log"
    log.unlink(missing_ok=True)
    with Service(["daybook", "run"], environment=environment, log=log) as run:
        yield run


async def until_ready(run: Service) -> None:
    """Wait until it has said that it stays."""

    async def ready() -> bool:
        assert run.running, run.said()
        return "Ctrl-C stops" in run.said()

    await until(ready, seconds=READY_SECONDS, what="daybook run being ready")


def family(run: Service) -> Sequence[psutil.Process]:
    """Return the process and all that it started."""
    process = psutil.Process(run.pid)
    return [process, *process.children(recursive=True)]


async def until_gone(processes: Sequence[psutil.Process], *, seconds: float = 30) -> None:
    """Wait until none of the processes runs any more."""

    async def gone() -> bool:
        return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)

    await until(gone, seconds=seconds, what="every process being gone")


@asynccontextmanager
async def client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client of the API that runs in `folder`."""
    note = json.loads((folder / "data" / "run.json").read_text())
    async with httpx.AsyncClient(base_url=note["url"]) as client:
        yield client


async def test_it_serves_the_report_of_yesterday_and_leaves_nothing_behind(folder: Path) -> None:
    with busy_port() as busy, daybook_run(folder, port=busy) as run:
        await until_ready(run)
        assert f"Port {busy} is busy; the API listens on" in run.said()
        started = family(run)
        async with client(folder) as api:
            days = (await api.get("/report/days")).json()["days"]
            sealed = [day for day in days if day["state"] == "sealed"]
            assert len(sealed) == 30
            yesterday = sealed[-1]["report_date"]
            rows = (await api.get("/report", params={"date": yesterday})).json()
        plain = await plain_sum(started, yesterday)
        assert [(row["order_id"], row["count_product"]) for row in rows] == plain
        assert f"Report of {yesterday}: {len(rows)} orders" in run.said()

        assert (await a_command_in_a_shell(folder, "check"))[-1] == "No problems found."
        await a_second_one_points_to_it(folder, run)
        run.send(signal.SIGINT)

        assert await asyncio.to_thread(run.wait) == 0
        await until_gone(started)


async def a_command_in_a_shell(folder: Path, command: str) -> list[str]:
    """Type `daybook …` in a shell that has read the file that was written for it."""
    shell = await asyncio.create_subprocess_exec(
        *("sh", "-c", f". ./data/env && exec daybook {command}"),
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await shell.communicate()
    assert shell.returncode == 0, said
    return said.decode().splitlines()


async def a_second_one_points_to_it(folder: Path, first: Service) -> None:
    """Start another in the same folder, and see it show the way to the first and end."""
    environment = {"DAYBOOK_DATA_DIR": str(folder / "data")}
    with Service(["daybook", "run"], environment=environment, log=folder / "second.log") as second:
        assert await asyncio.to_thread(second.wait) == 0
        assert f"already running here, as process {first.pid}" in second.said()
    async with client(folder) as api:
        assert f"{api.base_url}/docs".replace("//docs", "/docs") in second.said()
        assert (await api.get("/readyz")).is_success


async def test_it_starts_again_after_everything_was_killed_and_dies_as_one(folder: Path) -> None:
    port = free_port()
    with daybook_run(folder, port=port) as run:
        await until_ready(run)
        started = family(run)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await until_gone(started)
    with daybook_run(folder, port=port) as run:
        await until_ready(run)
        assert "Demo shop: up to date" in run.said()
        started = family(run)

        # It alone: nobody is left to stop the others.
        psutil.Process(run.pid).kill()

        await until_gone(started)


@contextmanager
def busy_port() -> Iterator[int]:
    """Give a port that somebody listens on."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


async def plain_sum(started: Sequence[psutil.Process], day: str) -> list[tuple[int, int]]:
    """Return what SQL says of `day`, read past the API."""
    (api,) = (p for p in started if any("daybook-api" in word for word in p.cmdline()))
    engine = create_async_engine(
        async_url(api.environ()["DAYBOOK_DATABASE_URL"]), poolclass=NullPool
    )
    statement = text(
        "SELECT o.id, coalesce(sum(i.quantity), 0) FROM orders o"
        " LEFT JOIN order_items i ON i.order_id = o.id"
        " WHERE (o.created_at AT TIME ZONE 'UTC')::date = CAST(:day AS text)::date"
        " GROUP BY o.id ORDER BY o.id"
    )
    async with engine.connect() as connection:
        found = await connection.execute(statement, {"day": day})
        return [(order, int(count)) for order, count in found.all()]
