"""How is a request that comes twice answered once?

An endpoint that creates something asks `replay` before it does, and hands its answer to `keep`,
both in the transaction of the effect:

    async with app.sessions.begin() as session:
        if (known := await once.replay(session, body)) is not None:
            return known
        …
        return await once.keep(session, created, location=…)

Without the header both do nothing. A refusal is not kept: its transaction leaves no trace.
"""

import hashlib
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_api.dependencies import App
from daybook_domain.idempotency import service
from daybook_domain.idempotency.service import StoredResponse

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Names this request, whatever connection it comes by: sent again with the same"
        " key it has no second effect, and is answered as the first time.",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
    ),
]

REPLAYED = "Idempotency-Replayed"


class IdempotentRequest:
    """The key of one request, if it has one."""

    def __init__(self, *, operation: str, key: str | None, retention: timedelta) -> None:
        self._operation = operation
        self._key = key
        self._retention = retention

    async def replay(self, session: AsyncSession, body: BaseModel | None = None) -> Response | None:
        """Return the answer that this request has got before, if it has.

        Raises `KeyReused` when the key came with another body.
        """
        if self._key is None:
            return None
        said = b"" if body is None else body.model_dump_json().encode()
        digest = hashlib.sha256(said).hexdigest()
        answer = await service.claim_key(
            session,
            operation=self._operation,
            key=self._key,
            digest=digest,
            retention=self._retention,
        )
        return None if answer is None else _response(answer, headers={REPLAYED: "true"})

    async def keep(
        self, session: AsyncSession, created: BaseModel, *, location: str, status: int = 201
    ) -> Response:
        """Return the answer that tells what was created, and remember it."""
        body = created.model_dump_json(by_alias=True).encode()
        answer = StoredResponse(status=status, location=location, body=body)
        if self._key is not None:
            await service.store_response(session, answer, operation=self._operation, key=self._key)
        return _response(answer, headers={})


def _response(answer: StoredResponse, *, headers: dict[str, str]) -> Response:
    if answer.location is not None:
        headers = {"Location": answer.location, **headers}
    return Response(
        answer.body, status_code=answer.status, media_type="application/json", headers=headers
    )


async def _once(request: Request, app: App, key: IdempotencyKeyHeader = None) -> IdempotentRequest:
    # Not a plain function: FastAPI would send it to a thread for each request.
    operation = f"{request.method} {request.scope['path']}"
    return IdempotentRequest(operation=operation, key=key, retention=app.idempotency_retention)


Idempotent = Annotated[IdempotentRequest, Depends(_once)]

CREATED = {
    "headers": {
        "Location": {
            "description": "Where what was created is found.",
            "schema": {"type": "string"},
        },
        REPLAYED: {
            "description": "`true` when the same request was answered before.",
            "schema": {"type": "string"},
        },
    }
}
"""What an answer of these endpoints carries, for the OpenAPI document."""
