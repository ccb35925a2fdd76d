"""What has a running service logged, as JSON?"""

import json
from typing import Any

from tests.support.processes import Service
from tests.support.waiting import until


def logged(service: Service, message: str) -> dict[str, Any]:
    """Return the line of its log with `message`; {} if there is none yet."""
    lines = [json.loads(line) for line in service.said().splitlines() if line.startswith("{")]
    return next((line for line in lines if line["message"] == message), {})


async def until_logged(service: Service, message: str) -> dict[str, Any]:
    """Wait until it has logged `message`, and return that line; fail when it ends without."""

    async def found() -> dict[str, Any]:
        line = logged(service, message)
        assert line or service.running, service.said()
        return line

    return await until(found, seconds=20, what=f"logging {message!r}")


async def health_url(service: Service) -> str:
    """Wait for its health endpoints, and return where they are."""
    line = await until_logged(service, "health server started")
    return f"http://127.0.0.1:{line['port']}"
