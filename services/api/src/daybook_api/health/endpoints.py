"""Is this process alive, is it ready, and what does it count?"""

import asyncio
from http import HTTPStatus
from time import perf_counter

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from starlette.responses import JSONResponse, Response

from daybook_api.dependencies import App, AppState
from daybook_api.errors import MEDIA_TYPE, RETRY_AFTER
from daybook_api.health.schemas import Dependency, Liveness, NotReady, Readiness
from daybook_domain.postgres_errors import is_outage

router = APIRouter(tags=["operation"])

PATIENCE_SECONDS = 2.0
MOST_LATE_DAYS = 31


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> Liveness:
    """Tell that the process lives; asks nobody else, so no outage elsewhere restarts it."""
    return Liveness()


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"description": "Not ready.", "content": {MEDIA_TYPE: {}}, "model": NotReady}},
)
async def readyz(request: Request, app: App) -> Response:
    """Tell whether Postgres answers within 2 seconds and has the tables."""
    postgres = await _postgres(app)
    dependencies = {"postgres": postgres}
    if postgres.status == "up":
        await _look_for_late_days(app)
        late = [day.report_date for day in app.watch.late[-MOST_LATE_DAYS:]]
        ready = Readiness(dependencies=dependencies, late_days=late)
        return JSONResponse(ready.model_dump(mode="json", exclude_none=True))
    status = HTTPStatus.SERVICE_UNAVAILABLE
    body = NotReady(
        type="urn:daybook:problem:not_ready",
        title=status.phrase,
        status=status,
        detail=f"postgres: {postgres.detail}",
        code="not_ready",
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
async def metrics(app: App) -> Response:
    """Give what was counted, for Prometheus."""
    await _look_for_late_days(app)
    return Response(generate_latest(app.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _look_for_late_days(app: AppState) -> None:
    """Bring the watch up to date; if that cannot be had now, what it saw last stands."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await app.watch.check()
    except Exception as error:
        if not is_outage(error) and not isinstance(error, ProgrammingError):
            raise


async def _postgres(app: AppState) -> Dependency:
    began = perf_counter()
    detail = await _what_is_wrong(app)
    return Dependency(
        status="up" if detail is None else "down",
        seconds=round(perf_counter() - began, 4),
        detail=detail,
    )


async def _what_is_wrong(app: AppState) -> str | None:
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), app.sessions() as session:
            migrated = await session.execute(text("SELECT to_regclass('report_runs') IS NOT NULL"))
    except TimeoutError:
        return f"no answer within {PATIENCE_SECONDS:g} s"
    except Exception as error:
        if not is_outage(error):
            raise
        # Only the kind: the text of a foreign error may hold an address or a password.
        return f"cannot be reached ({type(error).__name__})"
    return None if migrated.scalar_one() else "has no tables yet; `daybook migrate` makes them"
