"""The response to a request for a run."""

from http import HTTPStatus

from fastapi import Response
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_api.idempotency import IdempotentRequest
from daybook_api.runs.schemas import RunOut, RunRequested
from daybook_domain.runs import requests


async def accepted_run(
    session: AsyncSession, requested: requests.RequestedRun, *, idempotency: IdempotentRequest
) -> Response:
    """Return the 202 response that shows the requested run, stored under the idempotency key."""
    run = RunOut.model_validate(requested.run)
    return await idempotency.store(
        session,
        RunRequested(**run.model_dump(), joined=requested.joined),
        location=f"/report/runs/{run.id}",
        status=HTTPStatus.ACCEPTED,
    )
