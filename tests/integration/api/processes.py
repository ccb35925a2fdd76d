"""The API as a process of its own."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.processes import Service
from tests.support.waiting import until


@asynccontextmanager
async def api_process(
    url: str, folder: Path, **settings: str
) -> AsyncIterator[tuple[Service, httpx.AsyncClient]]:
    """Start an API process and yield it with a client."""
    environment = {"DAYBOOK_DATABASE_URL": url, "DAYBOOK_API_PORT": "0"} | settings
    with Service(["daybook-api"], environment=environment, log=folder / "api.log") as service:

        async def ready_url() -> str | None:
            assert service.running, service.said()
            found = re.search(r'http://127[^"]*', service.said())
            return found[0] if found and '"ready"' in service.said() else None

        base_url = await until(ready_url, what="the start of the API")
        async with httpx.AsyncClient(base_url=str(base_url), timeout=10) as client:
            yield service, client
