"""Services whose DAYBOOK_TIMEZONE is not the zone of business days, as processes."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.processes import Service, wait_for_health_url
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.rabbitmq, pytest.mark.usefixtures("clean")]

SERVICES = {
    "api": ["daybook-api"],
    "scheduler": ["daybook-scheduler"],
    "worker": ["daybook-worker", "reports"],
}


@pytest.fixture
def environment(postgres_url: str, rabbitmq_url: str) -> Mapping[str, str]:
    """Return the settings of a service in New York."""
    return {
        "DAYBOOK_DATABASE_URL": postgres_url,
        "DAYBOOK_BROKER_URL": rabbitmq_url,
        "DAYBOOK_API_PORT": "0",
        "DAYBOOK_TIMEZONE": "America/New_York",
    }


@pytest.fixture
async def tokyo(engine: AsyncEngine, clean: None) -> AsyncIterator[None]:
    """Record Tokyo as the zone of business days."""
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO business_timezone (is_only, timezone) VALUES (true, 'Asia/Tokyo')")
        )
    yield
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM business_timezone"))


def assert_names_both_zones(output: str) -> None:
    assert "DAYBOOK_TIMEZONE is America/New_York, but business days are in Asia/Tokyo" in output
    assert "`daybook timezone change America/New_York`" in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_in_another_zone_ends_with_exit_code_2(
    name: str, environment: Mapping[str, str], tmp_path: Path
) -> None:
    with Service(SERVICES[name], environment=environment, log=tmp_path / "log") as service:
        assert await asyncio.to_thread(service.wait) == 2

    assert_names_both_zones(service.read_log())


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_starts_before_postgres_is_not_ready_and_ends_when_it_is_reachable(
    name: str, environment: Mapping[str, str], postgres_url: str, tmp_path: Path
) -> None:
    async with Proxy(postgres_url) as proxy:
        await proxy.cut()
        settings = {**environment, "DAYBOOK_DATABASE_URL": proxy.url}
        with Service(SERVICES[name], environment=settings, log=tmp_path / "log") as service:
            url = await _until_serving(service, name)
            async with httpx.AsyncClient() as client:
                ready = await client.get(f"{url}/readyz")
            still_running = service.running
            await proxy.restore()
            assert await asyncio.to_thread(service.wait) == 2

    assert still_running
    assert ready.status_code == 503
    if name != "api":
        assert "has not been compared" in ready.json()["checks"]["timezone"]
    assert_names_both_zones(service.read_log())


async def _until_serving(service: Service, name: str) -> str:
    if name != "api":
        return await wait_for_health_url(service)

    async def find() -> str | None:
        assert service.running, service.read_log()
        found = re.search(r'http://127[^"]*', service.read_log())
        return found[0] if found and '"ready"' in service.read_log() else None

    return str(await wait_until(find, what="the start of the API"))


@pytest.mark.parametrize("name", SERVICES)
async def test_the_first_service_records_its_zone(
    name: str, environment: Mapping[str, str], engine: AsyncEngine, tmp_path: Path
) -> None:
    async def find() -> str | None:
        async with engine.connect() as connection:
            found = await connection.execute(text("SELECT timezone FROM business_timezone"))
            return found.scalar_one_or_none()

    try:
        with Service(SERVICES[name], environment=environment, log=tmp_path / "log"):
            assert await wait_until(find, what="a recorded zone") == "America/New_York"
    finally:
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM business_timezone"))
