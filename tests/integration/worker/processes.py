"""Worker processes under test."""

import asyncio
from collections.abc import Callable

import httpx

from tests.support.processes import Service, wait_for_health_url
from tests.support.waiting import wait_until

StartWorker = Callable[..., Service]
"""Start a process: `start_worker(*arguments, command=("daybook-worker",), **environment)`."""


async def wait_until_ready(worker: Service) -> str:
    """Wait until the worker is ready, and return the URL of its health endpoints."""
    url = await wait_for_health_url(worker)

    async def is_ready() -> bool:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"{url}/readyz")).status_code == 200

    await wait_until(is_ready, what="readiness")
    return url


async def wait_for_exit(worker: Service) -> int:
    """Wait until the process ends, and return its exit status."""
    return await asyncio.to_thread(worker.wait)
