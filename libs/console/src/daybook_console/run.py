"""`daybook run`: servers, services, demo orders and reports on one machine, until interrupted."""

import asyncio
import json
import os
import shlex
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NoReturn

from dotenv import dotenv_values
from rich.console import Console

from daybook_console import database, env_file, initial_data, preview, servers
from daybook_console.servers import ServerUrls
from daybook_console.service_processes import ServiceDefinition, ServiceGroup, script
from daybook_console.settings import RunSettings
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.locks import Lock
from daybook_embedded.ports import candidates
from daybook_platform.postgres import migrate
from daybook_platform.postgres.sessions import Sessions

RESTART_INTERVAL_SECONDS = 1.0
HOST = "127.0.0.1"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class RunContext:
    """Settings, data folder and console of one `daybook run`."""

    settings: RunSettings
    folder: Path
    console: Console


def run(settings: RunSettings, console: Console) -> int:
    """Start everything, show yesterday's report, run until interrupted; return the exit code.

    If another `daybook run` has this data folder, show its URLs and return.
    """
    context = RunContext(settings, settings.data_dir.absolute(), console)
    context.folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(context.folder / "lock")
    try:
        lock.acquire()
    except EmbeddedError as error:
        return _show_other_run(context, error)
    try:
        with ExitStack() as stack:
            stack.callback(lock.release)
            # A killed run has left its file, which would be shown to another one from now on.
            (context.folder / RUN_FILE).unlink(missing_ok=True)
            _run_until_interrupted(context, stack)
    except KeyboardInterrupt:
        # The regular end: see the signal handlers of the command.
        console.print("Stopped. The data remains.")
    return 0


def _run_until_interrupted(context: RunContext, stack: ExitStack) -> NoReturn:
    console = context.console
    console.print(f"Data and logs: {context.folder}")
    urls = servers.start(context.settings, stack)
    for name, description in urls.descriptions.items():
        console.print(f"{name}: {description}")
    asyncio.run(migrate.upgrade(urls.database_url))
    if urls.has_private_database:
        asyncio.run(_add_demo_orders(context, urls))
    port = _choose_api_port(context)
    services = ServiceGroup(_define_services(context, urls, port))
    stack.callback(services.stop)
    services.start()
    console.print("Services: api, scheduler and worker are ready")
    asyncio.run(_build_missing_reports(context, urls))
    url = f"http://{HOST}:{port}"
    _write_run_files(context, url, urls, stack)
    preview.show(console, url, asyncio.run(_get_yesterday(context, urls)))
    console.print(
        f"Commands:  . {shlex.quote(str(context.folder / 'env'))} && daybook --help",
        soft_wrap=True,
        markup=False,
    )
    console.print("Ctrl-C stops everything; the data remains.")
    _restart_services_forever(context, services)


def _write_run_files(context: RunContext, url: str, urls: ServerUrls, stack: ExitStack) -> None:
    """Write what other commands read while this one runs; `stack` removes it."""
    run_file, environment = context.folder / RUN_FILE, context.folder / "env"
    run_file.write_text(json.dumps({"pid": os.getpid(), "url": url}))
    env_file.write(environment, _shared_environment(context, urls))
    for path in (run_file, environment):
        stack.callback(path.unlink, missing_ok=True)


def _show_other_run(context: RunContext, error: EmbeddedError) -> int:
    run_file = context.folder / RUN_FILE
    if not run_file.exists():
        raise error
    other = json.loads(run_file.read_text())
    context.console.print(f"Daybook is already running here, as process {other['pid']}.")
    preview.show(context.console, other["url"], None)
    return 0


def _choose_api_port(context: RunContext) -> int:
    preferred = context.settings.api_port
    port = next(candidates(preferred))
    if port != preferred:
        context.console.print(f"Port {preferred} is busy; the API listens on {port}.")
    return port


def _define_services(
    context: RunContext, urls: ServerUrls, api_port: int
) -> Sequence[ServiceDefinition]:
    health_ports = candidates()
    shared = {
        # The services work in folders of their own, so they do not find this folder's .env.
        **{k: v for k, v in dotenv_values(".env").items() if k.startswith("DAYBOOK_") and v},
        **{k: v for k, v in os.environ.items() if k.startswith("DAYBOOK_")},
        **_shared_environment(context, urls),
        "DAYBOOK_LOG_FORMAT": os.environ.get("DAYBOOK_LOG_FORMAT", "console"),
    }
    api = ServiceDefinition(
        name="api",
        command=[script("daybook-api")],
        environment={**shared, "DAYBOOK_API_HOST": HOST, "DAYBOOK_API_PORT": str(api_port)},
        ready_url=f"http://{HOST}:{api_port}/readyz",
        folder=context.folder / "api",
    )
    background = [
        ServiceDefinition(
            name=name,
            command=[script(f"daybook-{name}")],
            environment={**shared, "DAYBOOK_HEALTH_HOST": HOST, "DAYBOOK_HEALTH_PORT": str(port)},
            ready_url=f"http://{HOST}:{port}/readyz",
            folder=context.folder / name,
        )
        for name, port in zip(("scheduler", "worker"), health_ports, strict=False)
    ]
    return [api, *background]


def _shared_environment(context: RunContext, urls: ServerUrls) -> dict[str, str]:
    """Return the environment variables that both services and commands need."""
    return {
        "DAYBOOK_DATABASE_URL": urls.database_url,
        "DAYBOOK_BROKER_URL": urls.broker_url,
        "DAYBOOK_REDIS_URL": urls.redis_url,
        "DAYBOOK_TIMEZONE": context.settings.timezone,
    }


def _open_sessions(urls: ServerUrls) -> AbstractAsyncContextManager[Sessions]:
    return database.open_sessions(urls.database_url, application="daybook run")


async def _add_demo_orders(context: RunContext, urls: ServerUrls) -> None:
    timezone = context.settings.timezone
    async with _open_sessions(urls) as sessions:
        await initial_data.add_demo_orders(sessions, context.console, timezone=timezone)


async def _build_missing_reports(context: RunContext, urls: ServerUrls) -> None:
    timezone = context.settings.timezone
    async with _open_sessions(urls) as sessions:
        await initial_data.build_missing_reports(sessions, context.console, timezone=timezone)


async def _get_yesterday(context: RunContext, urls: ServerUrls) -> date:
    async with _open_sessions(urls) as sessions:
        return await initial_data.get_yesterday(sessions, timezone=context.settings.timezone)


def _restart_services_forever(context: RunContext, services: ServiceGroup) -> NoReturn:
    while True:
        time.sleep(RESTART_INTERVAL_SECONDS)
        for name in services.restart_ended():
            context.console.print(f"[yellow]{name} ended unexpectedly and was restarted.[/]")
