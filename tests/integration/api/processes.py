"""The API as a process of its own."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.processes import Service
from tests.support.waiting import wait_until


@asynccontextmanager
async def api_process(
    url: str, folder: Path, **settings: str
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Start an API process and yield it with a client."""
    environment = {"DAYBOOK_DATABASE_URL": url, "DAYBOOK_API_PORT": "0"} | settings
    with Service(["daybook-api"], environment=environment, log=folder / "api.log") as service:

        async def ready_url() -> str | None:
            assert service.running, service.read_log()
            found = re.search(r'http://127[^"]*', service.read_log())
            return found[0] if found and '"ready"' in service.read_log() else None

        base_url = await wait_until(ready_url, what="the start of the API")
        async with httpx.AsyncClient(base_url=str(base_url), timeout=10) as client:
            yield service, client
