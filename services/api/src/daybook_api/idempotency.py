"""Idempotent requests: the `Idempotency-Key` header and stored responses.

An endpoint that creates something calls `replay` before and `store` after, both in the transaction
of the effect:

    async with app.sessions.begin() as session:
        if (stored := await idempotency.replay(session, body)) is not None:
            return stored
        …
        return await idempotency.store(session, created, location=…)

Without the header neither reads or writes a key. An error response is not stored, because its
transaction is rolled back.
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
        description="A unique key of this request. Repeating a request with the same key has no"
        " second effect and returns the stored first response.",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
    ),
]

REPLAYED_HEADER = "Idempotency-Replayed"


class IdempotentRequest:
    """A request with its idempotency key, if it has one."""

    def __init__(self, *, operation: str, key: str | None, retention: timedelta) -> None:
        self._operation = operation
        self._key = key
        self._retention = retention

    async def replay(self, session: AsyncSession, body: BaseModel | None = None) -> Response | None:
        """Return the stored response to an earlier request with this key, or None.

        Raises `KeyReused` when the earlier request had another body.
        """
        if self._key is None:
            return None
        content = b"" if body is None else body.model_dump_json().encode()
        stored = await service.claim_key(
            session,
            operation=self._operation,
            key=self._key,
            digest=hashlib.sha256(content).hexdigest(),
            retention=self._retention,
        )
        return None if stored is None else _to_response(stored, headers={REPLAYED_HEADER: "true"})

    async def store(
        self, session: AsyncSession, created: BaseModel, *, location: str, status: int = 201
    ) -> Response:
        """Return the response that shows what was created, after storing it under the key."""
        body = created.model_dump_json(by_alias=True).encode()
        stored = StoredResponse(status=status, location=location, body=body)
        if self._key is not None:
            await service.store_response(session, stored, operation=self._operation, key=self._key)
        return _to_response(stored, headers={})


def _to_response(stored: StoredResponse, *, headers: dict[str, str]) -> Response:
    if stored.location is not None:
        headers = {"Location": stored.location, **headers}
    return Response(
        stored.body, status_code=stored.status, media_type="application/json", headers=headers
    )


async def _idempotent_request(
    request: Request, app: App, key: IdempotencyKeyHeader = None
) -> IdempotentRequest:
    # A coroutine, because FastAPI runs a plain function in a thread for each request.
    operation = f"{request.method} {request.scope['path']}"
    return IdempotentRequest(operation=operation, key=key, retention=app.idempotency_retention)


Idempotency = Annotated[IdempotentRequest, Depends(_idempotent_request)]

CREATED_RESPONSE = {
    "headers": {
        "Location": {
            "description": "The path of the created resource.",
            "schema": {"type": "string"},
        },
        REPLAYED_HEADER: {
            "description": "`true` if this is the stored response to an earlier request.",
            "schema": {"type": "string"},
        },
    }
}
"""The response headers of idempotent endpoints, for the OpenAPI document."""
