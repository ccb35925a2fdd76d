"""A complete Daybook for a test: private servers, a movable clock, any number of services."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from uuid import UUID

import httpx
from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.business_day import business_day
from daybook_domain.reports.models import Report, ReportDay
from daybook_domain.runs.models import ReportRun, RunState, RunTrigger
from daybook_domain.runs.requests import request
from daybook_embedded.ports import free_port
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import RabbitServer
from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_platform.postgres.sessions import Sessions
from tests.support.clock import MovableClock
from tests.support.factories.shop import create_order, reset_shop
from tests.support.postgres import migrated_database
from tests.support.processes import Service
from tests.support.waiting import wait_until

READY_SECONDS = 30


class Stack:
    """The servers of one test, and the services that it runs on them."""

    def __init__(
        self,
        *,
        postgres: PostgresServer,
        rabbitmq: RabbitServer,
        database_url: str,
        redis_url: str,
        sessions: Sessions,
        clock: MovableClock,
        folder: Path,
        timezone: str,
        services: ExitStack,
    ) -> None:
        """Store the parts; `running_stack` creates them."""
        self.postgres = postgres
        self.rabbitmq = rabbitmq
        self.sessions = sessions
        self.clock = clock
        self.timezone = timezone
        self._services = services
        self._folder = folder
        self._started_count = 0
        self.environment = {
            "DAYBOOK_DATABASE_URL": database_url,
            "DAYBOOK_BROKER_URL": rabbitmq.url,
            "DAYBOOK_REDIS_URL": redis_url,
            "DAYBOOK_TIMEZONE": timezone,
            "DAYBOOK_LOG_FORMAT": "console",
            # Short leases: a dead worker is detected and a lost message is sent again soon.
            "DAYBOOK_LEASE_SECONDS": "3",
            "DAYBOOK_QUEUE_LEASE_SECONDS": "10",
            "DAYBOOK_DISPATCH_LEASE_SECONDS": "10",
        }

    async def start_scheduler(self, **environment: str) -> Service:
        """Start a scheduler, wait until it is ready, and return it."""
        port = free_port()
        return await self._start(["daybook-scheduler"], "DAYBOOK_HEALTH_PORT", port, environment)

    async def start_worker(self, role: str = "reports", **environment: str) -> Service:
        """Start a worker, wait until it is ready, and return it."""
        port = free_port()
        command = ["daybook-worker", role]
        return await self._start(command, "DAYBOOK_HEALTH_PORT", port, environment)

    async def start_api(self, **environment: str) -> tuple[Service, str]:
        """Start an api, wait until it is ready, and return it with its URL."""
        port = free_port()
        service = await self._start(["daybook-api"], "DAYBOOK_API_PORT", port, environment)
        return service, f"http://127.0.0.1:{port}"

    async def _start(
        self, command: Sequence[str], port_variable: str, port: int, environment: dict[str, str]
    ) -> Service:
        self._started_count += 1
        service = Service(
            command,
            environment={**self.environment, port_variable: str(port), **environment},
            log=self._folder / f"{self._started_count}-{command[0]}.log",
        )
        self._services.enter_context(service)
        async with httpx.AsyncClient(timeout=2) as client:

            async def ready() -> bool:
                assert service.running, service.read_log()[-4000:]
                try:
                    response = await client.get(f"http://127.0.0.1:{port}/readyz")
                except httpx.HTTPError:
                    return False
                return response.is_success

            await wait_until(ready, seconds=READY_SECONDS, what=f"{command[0]} ready")
        return service

    async def add_orders(self, *instants: datetime, quantities: Sequence[int] = (1, 2)) -> None:
        """Add an order at each of `instants`."""
        async with self.sessions.begin() as session:
            await self.add_orders_in(session, *instants, quantities=quantities)

    async def add_orders_in(
        self, session: AsyncSession, *instants: datetime, quantities: Sequence[int] = (1, 2)
    ) -> None:
        """Add an order at each of `instants`, in the transaction of the caller."""
        connection = await session.connection()
        for instant in instants:
            await create_order(connection, created_at=instant, quantities=quantities)

    async def request_run(self, day: date) -> UUID:
        """Request the report of `day` and return the id of its run."""
        async with self.sessions.begin() as session:
            requested = await request(
                session,
                day=business_day(day, timezone=self.timezone),
                trigger=RunTrigger.MANUAL,
                now=await self.clock.now(),
            )
        return requested.run.id

    async def get_run(self, run_id: UUID) -> ReportRun:
        """Return the current state of a run."""
        async with self.sessions() as session:
            return (await session.exec(select(ReportRun).where(ReportRun.id == run_id))).one()

    async def list_runs(self, *, trigger: RunTrigger = RunTrigger.SCHEDULE) -> Sequence[ReportRun]:
        """Return all runs with that trigger, oldest fire first."""
        statement = (
            select(ReportRun)
            .where(ReportRun.trigger == trigger)
            .order_by(col(ReportRun.scheduled_for), col(ReportRun.created_at))
        )
        async with self.sessions() as session:
            return (await session.exec(statement)).all()

    async def find_day(self, day: date) -> ReportDay | None:
        """Return the row of `report_days` for `day`, or None."""
        async with self.sessions() as session:
            return await session.get(ReportDay, day)

    async def read_report(self, day: date) -> dict[int, int]:
        """Return the stored report of `day`: number of products by order id."""
        statement = select(Report.order_id, Report.count_product).where(Report.report_at == day)
        async with self.sessions() as session:
            return dict((await session.exec(statement)).all())

    async def compute_expected_report(self, day: date) -> dict[int, int]:
        """Return the report of `day` as a plain SQL sum over its orders computes it."""
        span = business_day(day, timezone=self.timezone)
        statement = text(
            "SELECT o.id, coalesce(sum(i.quantity), 0) FROM orders o"
            " LEFT JOIN order_items i ON i.order_id = o.id"
            " WHERE o.created_at >= :starts AND o.created_at < :ends GROUP BY o.id"
        )
        async with self.sessions() as session:
            found = await session.execute(
                statement, {"starts": span.starts_at, "ends": span.ends_at}
            )
            return {order: int(count) for order, count in found.all()}

    async def wait_for_state(
        self, run_id: UUID, state: RunState, *, attempt: int | None = None, seconds: float = 30
    ) -> ReportRun:
        """Wait until a run is in `state`, in that `attempt` if given, and return it."""

        async def reached() -> bool:
            run = await self.get_run(run_id)
            return run.state == state and attempt in (None, run.attempt)

        await wait_until(reached, seconds=seconds, what=f"run {run_id} {state.value}")
        return await self.get_run(run_id)

    async def wait_until_sealed(
        self, day: date, *, revision: int = 1, seconds: float = 30
    ) -> ReportDay:
        """Wait until `day` is sealed at `revision`, and return its row of `report_days`."""

        async def sealed() -> ReportDay | None:
            row = await self.find_day(day)
            done = row is not None and row.sealed_at is not None and row.revision == revision
            return row if done else None

        row = await wait_until(sealed, seconds=seconds, what=f"{day} sealed at revision {revision}")
        assert row is not None
        return row


@asynccontextmanager
async def running_stack(
    *,
    postgres: PostgresServer,
    rabbitmq: RabbitServer,
    redis_url: str,
    folder: Path,
    timezone: str = "UTC",
    name: str,
) -> AsyncIterator[Stack]:
    """Yield a stack on a new database; end its services afterwards."""
    with ExitStack() as services:
        async with migrated_database(postgres.url, name=name) as database_url:
            clock = MovableClock(database_url)
            await clock.install()
            engine = create_engine(database_url, application="e2e")
            try:
                await reset_shop(engine)
                yield Stack(
                    postgres=postgres,
                    rabbitmq=rabbitmq,
                    database_url=database_url,
                    redis_url=redis_url,
                    sessions=create_sessions(engine),
                    clock=clock,
                    folder=folder,
                    timezone=timezone,
                    services=services,
                )
            finally:
                await asyncio.to_thread(services.close)
                await engine.dispose()
