"""`daybook run` on a machine without servers: it starts everything and leaves no process behind."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
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
from tests.support.midnight import wait_if_midnight_is_near
from tests.support.processes import Service
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

READY_SECONDS = 90
DATA = "the data"
"""The name of a folder that a shell needs quoted."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder in the role of the checkout, on a day that lasts until the end of the test."""
    wait_if_midnight_is_near(margin=timedelta(minutes=2))
    with scratch_folder() as folder:
        yield folder


@contextmanager
def daybook_run(folder: Path, *, port: int) -> Iterator[Service]:
    """Start `daybook run` in `folder`, and end it after the block."""
    environment = {"DAYBOOK_DATA_DIR": str(folder / DATA), "DAYBOOK_API_PORT": str(port)}
    log = folder / "run.log"
    log.unlink(missing_ok=True)
    with Service(["daybook", "run"], environment=environment, log=log) as run:
        yield run


async def wait_until_ready(run: Service) -> None:
    """Wait until `daybook run` reports that everything is running."""

    async def ready() -> bool:
        assert run.running, run.read_log()
        return "Ctrl-C stops" in run.read_log()

    await wait_until(ready, seconds=READY_SECONDS, what="daybook run ready")


def list_processes(run: Service) -> Sequence[psutil.Process]:
    """Return the process and all its descendants."""
    process = psutil.Process(run.pid)
    return [process, *process.children(recursive=True)]


async def wait_until_ended(processes: Sequence[psutil.Process], *, seconds: float = 30) -> None:
    """Wait until none of the processes runs any more."""

    async def ended() -> bool:
        return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)

    await wait_until(ended, seconds=seconds, what="the end of every process")


@asynccontextmanager
async def client(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of the API that runs in `folder`."""
    note = json.loads((folder / DATA / "run.json").read_text())
    async with httpx.AsyncClient(base_url=note["url"]) as client:
        yield client


async def test_daybook_run_serves_the_report_of_yesterday_and_leaves_no_process_behind(
    folder: Path,
) -> None:
    with busy_port() as busy, daybook_run(folder, port=busy) as run:
        await wait_until_ready(run)
        assert f"Port {busy} is busy; the API listens on" in run.read_log()
        started = list_processes(run)
        async with client(folder) as api:
            days = (await api.get("/report/days")).json()["days"]
            sealed = [day for day in days if day["state"] == "sealed"]
            assert len(sealed) == 30
            yesterday = sealed[-1]["report_date"]
            rows = (await api.get("/report", params={"date": yesterday})).json()
        expected = await expected_rows(started, yesterday)
        assert [(row["order_id"], row["count_product"]) for row in rows] == expected
        assert f"Report of {yesterday}: {len(rows)} orders" in run.read_log()

        assert (await run_in_shell(folder, run, "check"))[-1] == "No problems found."
        await assert_second_run_refers_to_first(folder, run)
        run.send(signal.SIGINT)

        assert await asyncio.to_thread(run.wait) == 0
        await wait_until_ended(started)


async def run_in_shell(folder: Path, run: Service, command: str) -> list[str]:
    """Run `daybook COMMAND` in a shell by the printed `Commands:` line; return its output lines."""
    (printed,) = [line for line in run.read_log().splitlines() if line.startswith("Commands:")]
    line = printed.removeprefix("Commands:").replace("daybook --help", f"exec daybook {command}")
    shell = await asyncio.create_subprocess_exec(
        *("sh", "-c", line),
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await shell.communicate()
    assert shell.returncode == 0, output
    return output.decode().splitlines()


async def assert_second_run_refers_to_first(folder: Path, first: Service) -> None:
    """Require that another one in the same folder shows the URL of the first and ends."""
    environment = {"DAYBOOK_DATA_DIR": str(folder / DATA)}
    with Service(["daybook", "run"], environment=environment, log=folder / "second.log") as second:
        assert await asyncio.to_thread(second.wait) == 0
        assert f"already running here, as process {first.pid}" in second.read_log()
    async with client(folder) as api:
        assert f"{api.base_url}/docs".replace("//docs", "/docs") in second.read_log()
        assert (await api.get("/readyz")).is_success


async def test_daybook_run_restarts_after_a_kill_and_its_children_end_with_it(folder: Path) -> None:
    port = free_port()
    with daybook_run(folder, port=port) as run:
        await wait_until_ready(run)
        started = list_processes(run)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        await wait_until_ended(started)
    with daybook_run(folder, port=port) as run:
        await wait_until_ready(run)
        assert "Demo shop: up to date" in run.read_log()
        started = list_processes(run)

        # Only this process: its children must notice by themselves.
        psutil.Process(run.pid).kill()

        await wait_until_ended(started)


@contextmanager
def busy_port() -> Iterator[int]:
    """Yield a port that is in use."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


async def expected_rows(started: Sequence[psutil.Process], day: str) -> list[tuple[int, int]]:
    """Return the report rows of `day`, computed by SQL from the orders."""
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
