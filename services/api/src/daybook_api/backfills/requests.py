"""Requests for backfills and their previews, which `/report/backfills` and `/report/runs` share."""

from http import HTTPStatus

from fastapi import Response
from pydantic import BaseModel

from daybook_api.backfills.schemas import BackfillOut, BackfillPreview, BackfillRequested
from daybook_api.dependencies import AppState
from daybook_api.idempotency import IdempotentRequest
from daybook_domain import clock
from daybook_domain.backfills import queries, service
from daybook_domain.backfills.service import BackfillRange


async def preview_backfill(wanted: BackfillRange, app: AppState) -> BackfillPreview:
    """Return the decisions that a backfill of the range would make now."""
    async with app.sessions() as session:
        decisions = await service.preview(
            session, wanted=wanted, timezone=app.timezone, now=await clock.now(session)
        )
    return BackfillPreview.of(decisions)


async def request_backfill(
    body: BaseModel,
    wanted: BackfillRange,
    *,
    concurrency: int,
    reason: str | None,
    app: AppState,
    idempotency: IdempotentRequest,
) -> Response:
    """Request a backfill of the range, or join an active one; return the 202 response.

    `body` is the request body, which must be equal when the idempotency key is repeated.
    """
    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session, body)) is not None:
            return stored
        now = await clock.now(session)
        requested = await service.request(
            session,
            wanted=wanted,
            timezone=app.timezone,
            now=now,
            concurrency=concurrency,
            reason=reason,
        )
        backfill = requested.backfill
        progress = await queries.get_progress(session, [backfill], now=now)
        shown = BackfillOut.of(backfill, progress[backfill.id])
        return await idempotency.store(
            session,
            BackfillRequested(**shown.model_dump(), already_going=requested.joined),
            location=f"/report/backfills/{backfill.id}",
            status=HTTPStatus.ACCEPTED,
        )
