"""How does all of Daybook come to life on one machine, and go again?"""

import asyncio
import json
import os
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import NoReturn

from dotenv import dotenv_values
from rich.console import Console

from daybook_console import database, env_file, preview, progress, servers, shop
from daybook_console.servers import Servers
from daybook_console.services import Service, Services, script
from daybook_console.settings import RunSettings
from daybook_domain import clock
from daybook_domain.backfills import queries
from daybook_domain.backfills import service as backfills
from daybook_domain.backfills.service import BackfillRange
from daybook_domain.reports.business_day import local_date
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.locks import Lock
from daybook_embedded.ports import candidates
from daybook_platform.postgres import migrate
from daybook_platform.postgres.engine import Sessions

DAYS = 30
WATCH_SECONDS = 1.0
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Run:
    """What one `daybook run` needs to know wherever it is at."""

    settings: RunSettings
    folder: Path
    console: Console


def run(settings: RunSettings, console: Console) -> int:
    """Start everything, show yesterday's report, stay until interrupted; return the exit code.

    Where it runs in this folder already, shows the way to that one instead.
    """
    this = Run(settings, settings.data_dir.absolute(), console)
    this.folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(this.folder / "lock")
    try:
        lock.acquire()
    except EmbeddedError as error:
        return _show_running(this, error)
    try:
        with ExitStack() as stack:
            stack.callback(lock.release)
            _live(this, stack)
    except KeyboardInterrupt:
        # The way that this is meant to end.
        console.print("Stopped; the data stays.")
    return 0


def _live(this: Run, stack: ExitStack) -> None:
    this.console.print(f"Data and logs: {this.folder}")
    found = servers.start(this.settings, stack)
    for name, words in found.about.items():
        this.console.print(f"{name}: {words}")
    asyncio.run(migrate.upgrade(found.database_url))
    if found.private_database:
        asyncio.run(_load_shop(this, found))
    port = _api_port(this)
    services = Services(_services(this, found, port))
    stack.callback(services.stop)
    services.start()
    this.console.print("Services: api, scheduler and worker are ready")
    asyncio.run(_build_missing(this, found))
    url = f"http://{HOST}:{port}"
    _remember(this, url, found, stack)
    yesterday = asyncio.run(_yesterday(this, found))
    preview.show(this.console, url, yesterday)
    this.console.print(f"Commands:  . {this.folder / 'env'} && daybook --help", soft_wrap=True)
    this.console.print("Ctrl-C stops everything and leaves the data.")
    _watch(this, services)


def _remember(this: Run, url: str, found: Servers, stack: ExitStack) -> None:
    note, environment = this.folder / "run.json", this.folder / "env"
    note.write_text(json.dumps({"pid": os.getpid(), "url": url}))
    env_file.write(environment, _shared(this, found))
    for path in (note, environment):
        stack.callback(path.unlink, missing_ok=True)


def _show_running(this: Run, error: EmbeddedError) -> int:
    note = this.folder / "run.json"
    if not note.exists():
        raise error
    running = json.loads(note.read_text())
    this.console.print(f"Daybook runs here already, as process {running['pid']}.")
    preview.show(this.console, running["url"], None)
    return 0


def _api_port(this: Run) -> int:
    port = next(candidates(this.settings.api_port))
    if port != this.settings.api_port:
        this.console.print(f"Port {this.settings.api_port} is busy; the API listens on {port}.")
    return port


def _services(this: Run, found: Servers, api_port: int) -> Sequence[Service]:
    health = candidates()
    shared = {
        # Children do not see the .env of this folder: they work in their own.
        **{k: v for k, v in dotenv_values(".env").items() if k.startswith("DAYBOOK_") and v},
        **{k: v for k, v in os.environ.items() if k.startswith("DAYBOOK_")},
        **_shared(this, found),
        "DAYBOOK_LOG_FORMAT": os.environ.get("DAYBOOK_LOG_FORMAT", "console"),
    }
    api = Service(
        name="api",
        command=[script("daybook-api")],
        environment={**shared, "DAYBOOK_API_HOST": HOST, "DAYBOOK_API_PORT": str(api_port)},
        ready_url=f"http://{HOST}:{api_port}/readyz",
        folder=this.folder / "api",
    )
    return [
        api,
        *(
            Service(
                name=name,
                command=[script(f"daybook-{name}")],
                environment={**shared, "DAYBOOK_HEALTH_HOST": HOST, "DAYBOOK_HEALTH_PORT": port},
                ready_url=f"http://{HOST}:{port}/readyz",
                folder=this.folder / name,
            )
            for name, port in (("scheduler", str(next(health))), ("worker", str(next(health))))
        ),
    ]


def _shared(this: Run, found: Servers) -> dict[str, str]:
    """Return what services and commands alike have to be told."""
    return {
        "DAYBOOK_DATABASE_URL": found.database_url,
        "DAYBOOK_BROKER_URL": found.broker_url,
        "DAYBOOK_REDIS_URL": found.redis_url,
        "DAYBOOK_TIMEZONE": this.settings.timezone,
    }


def _opened(found: Servers) -> AbstractAsyncContextManager[Sessions]:
    return database.opened(found.database_url, application="daybook run")


async def _load_shop(this: Run, found: Servers) -> None:
    async with _opened(found) as sessions, sessions.begin() as session:
        added = await shop.load(
            session,
            seed=shop.SEED,
            days=DAYS,
            timezone=this.settings.timezone,
            now=await clock.now(session),
        )
    this.console.print(f"Demo shop: {added} orders added" if added else "Demo shop: up to date")


async def _yesterday(this: Run, found: Servers) -> date:
    async with _opened(found) as sessions, sessions() as session:
        now = await clock.now(session)
    return local_date(now, timezone=this.settings.timezone) - timedelta(days=1)


async def _build_missing(this: Run, found: Servers) -> None:
    async with _opened(found) as sessions:
        async with sessions.begin() as session:
            now = await clock.now(session)
            yesterday = local_date(now, timezone=this.settings.timezone) - timedelta(days=1)
            requested = await backfills.request(
                session,
                wanted=BackfillRange(first=yesterday - timedelta(days=DAYS - 1), last=yesterday),
                timezone=this.settings.timezone,
                now=now,
                reason="the report was missing",
                requested_by="daybook run",
            )
        backfill_id = requested.backfill.id
        await progress.follow(
            sessions, backfill_id, console=this.console, title="Building missing reports"
        )
        async with sessions() as session:
            failed = await queries.list_backfill_days(
                session, backfill_id, outcomes=["failed"], limit=DAYS
            )
        for day in failed:
            this.console.print(f"[red]{day.report_date} failed[/]: {day.error_detail}")


def _watch(this: Run, services: Services) -> NoReturn:
    while True:
        time.sleep(WATCH_SECONDS)
        for name in services.restart_dead():
            this.console.print(f"[yellow]{name} ended by itself and was started again.[/]")
