"""Idempotent requests: claims of keys and stored responses, in the transaction of the request.

The key is claimed first, so that a concurrent request with the same key waits for the first one:
for its response, or for its rollback, which releases the key.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.idempotency.errors import KeyReused
from daybook_domain.idempotency.models import IdempotencyKey

EXPIRED_KEYS_PER_CLAIM = 10
"""Number of expired keys that each new key deletes; more than one, so that they are used up."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """The response to a request, as stored."""

    status: int
    location: str | None
    body: bytes


async def claim_key(
    session: AsyncSession, *, operation: str, key: str, digest: str, retention: timedelta
) -> StoredResponse | None:
    """Claim a key; return the stored response if the key was used, else None.

    After None the caller processes the request and calls `store_response`. `digest` is the digest
    of the request; raises `KeyReused` if the key was used with another one. Keys older than
    `retention` count as unused.
    """
    oldest = func.now() - retention
    claim = (
        insert(IdempotencyKey)
        .values(operation=operation, key=key, request_digest=digest)
        .on_conflict_do_update(
            index_elements=[col(IdempotencyKey.operation), col(IdempotencyKey.key)],
            set_={
                "request_digest": digest,
                "status": None,
                "location": None,
                "body": None,
                "created_at": func.now(),
            },
            where=col(IdempotencyKey.created_at) < oldest,
        )
        .returning(text("1"))
    )
    if (await session.execute(claim)).one_or_none() is not None:
        await _delete_expired(session, oldest)
        return None
    statement = select(IdempotencyKey).where(
        IdempotencyKey.operation == operation, IdempotencyKey.key == key
    )
    stored = (await session.exec(statement)).one()
    if stored.request_digest != digest:
        raise KeyReused(
            f"The Idempotency-Key {key} was already used for another request;"
            " send a new request with a new key."
        )
    assert stored.status is not None
    assert stored.body is not None
    return StoredResponse(status=stored.status, location=stored.location, body=stored.body)


async def store_response(
    session: AsyncSession, response: StoredResponse, *, operation: str, key: str
) -> None:
    """Store the response to a request whose key was claimed in this transaction."""
    await session.execute(
        update(IdempotencyKey)
        .where(col(IdempotencyKey.operation) == operation, col(IdempotencyKey.key) == key)
        .values(status=response.status, location=response.location, body=response.body)
    )


async def _delete_expired(session: AsyncSession, oldest: object) -> None:
    table = IdempotencyKey
    expired = (
        select(table.operation, table.key)
        .where(col(table.created_at) < oldest)
        .order_by(col(table.created_at))
        .limit(EXPIRED_KEYS_PER_CLAIM)
        .with_for_update(skip_locked=True)
    )
    await session.execute(
        delete(table)
        .where(tuple_(col(table.operation), col(table.key)).in_(expired))
        .execution_options(synchronize_session=False)
    )
