"""The lateness monitor during and after an outage."""

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from daybook_platform.lateness_monitor import LatenessMonitor
from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_platform.postgres.sessions import Sessions
from tests.support.proxy import Proxy


class CountingMonitor(LatenessMonitor):
    """A monitor that reports each check."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(
            sessions=sessions,
            registry=CollectorRegistry(),
            timezone="UTC",
            late_after=timedelta(minutes=15),
            interval_seconds=0,
        )
        self.succeeded = asyncio.Event()
        self.failed = asyncio.Event()

    async def check(self) -> None:
        try:
            await super().check()
        except Exception:
            self.failed.set()
            raise
        self.succeeded.set()


@pytest.mark.usefixtures("clean")
async def test_the_monitor_continues_after_an_outage(postgres_url: str) -> None:
    async with Proxy(postgres_url) as proxy:
        engine = create_engine(proxy.url, application="tests")
        monitor = CountingMonitor(create_sessions(engine))
        running = asyncio.create_task(monitor.run())
        try:
            async with asyncio.timeout(30):
                await monitor.succeeded.wait()
                await proxy.cut()
                await monitor.failed.wait()
                monitor.succeeded.clear()
                await proxy.restore()
                await monitor.succeeded.wait()
            assert not running.done()
        finally:
            running.cancel()
            await engine.dispose()
