"""/healthz, /readyz and /metrics: liveness, readiness and Prometheus metrics."""

import asyncio
from http import HTTPStatus
from time import perf_counter

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from starlette.responses import JSONResponse, Response

from daybook_api.dependencies import App, AppState
from daybook_api.health.schemas import DependencyStatus, Liveness, NotReady, Readiness
from daybook_api.problems import MEDIA_TYPE, RETRY_AFTER, HttpProblemCode, problem_type
from daybook_domain.errors import DaybookError
from daybook_domain.postgres_errors import is_outage

router = APIRouter(tags=["operation"])

CHECK_TIMEOUT_SECONDS = 2.0
MAX_LATE_DAYS = 31


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def get_liveness() -> Liveness:
    """Check that the process is alive.

    No dependency is checked, so an outage elsewhere does not restart the process.
    """
    return Liveness()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    response_model=Readiness,
    responses={
        503: {
            "description": "The process is not ready.",
            "content": {MEDIA_TYPE: {}},
            "model": NotReady,
        }
    },
)
async def get_readiness(request: Request, app: App) -> Response:
    """Check that Postgres responds within 2 seconds, and has the tables and this time zone."""
    postgres = await _check_postgres(app)
    dependencies = {"postgres": postgres}
    if postgres.status == "up":
        await _refresh_late_days(app)
        late_days = [day.report_date for day in app.lateness.late[-MAX_LATE_DAYS:]]
        ready = Readiness(dependencies=dependencies, late_days=late_days)
        return JSONResponse(ready.model_dump(mode="json", exclude_none=True))
    status = HTTPStatus.SERVICE_UNAVAILABLE
    body = NotReady(
        type=problem_type(HttpProblemCode.NOT_READY),
        title=status.phrase,
        status=status,
        detail=f"postgres: {postgres.detail}",
        code=HttpProblemCode.NOT_READY,
        request_id=request.state.request_id,
        dependencies=dependencies,
    )
    return JSONResponse(
        body.model_dump(exclude_none=True),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=RETRY_AFTER,
    )


@router.get("/metrics", include_in_schema=False)
async def get_metrics(app: App) -> Response:
    """Get the metrics in the Prometheus text format."""
    await _refresh_late_days(app)
    return Response(generate_latest(app.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _refresh_late_days(app: AppState) -> None:
    """Refresh the late days; while the database is unavailable the previous ones remain."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await app.lateness.check()
    except Exception as error:
        if not is_outage(error) and not isinstance(error, ProgrammingError):
            raise


async def _check_postgres(app: AppState) -> DependencyStatus:
    started = perf_counter()
    problem = await _find_postgres_problem(app)
    return DependencyStatus(
        status="up" if problem is None else "down",
        seconds=round(perf_counter() - started, 4),
        detail=problem,
    )


async def _find_postgres_problem(app: AppState) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            async with app.sessions() as session:
                migrated = await session.execute(
                    text("SELECT to_regclass('business_timezone') IS NOT NULL")
                )
            if not migrated.scalar_one():
                return "has no tables, or old ones; run `daybook migrate`"
            await app.timezone_check.require_confirmed()
    except DaybookError as error:
        return error.detail
    except TimeoutError:
        return f"no response within {CHECK_TIMEOUT_SECONDS:g} s"
    except Exception as error:
        if not is_outage(error):
            raise
        # Only the class name: the text may contain an address or a password.
        return f"cannot be reached ({type(error).__name__})"
    return None
