"""Has this request been answered already? Decided inside the transaction of its effect.

The key is claimed before anything else is done, so that a second request of the same key waits for
the first: for its answer, or for its failure, which leaves no trace.
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
"""How many expired keys a new one removes: more than one, so that they do not pile up."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """How a request was answered, for good."""

    status: int
    location: str | None
    body: bytes


async def claim_key(
    session: AsyncSession, *, operation: str, key: str, digest: str, retention: timedelta
) -> StoredResponse | None:
    """Return the answer that the key has got already; None when the caller is to do the work.

    `digest` tells whether the request is the same; raises `KeyReused` when it is not. A key older
    than `retention` is as good as new.
    """
    oldest = func.now() - retention
    claimed = (
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
    if (await session.execute(claimed)).one_or_none() is not None:
        await _forget(session, oldest)
        return None
    kept = select(IdempotencyKey).where(
        IdempotencyKey.operation == operation, IdempotencyKey.key == key
    )
    found = (await session.exec(kept)).one()
    if found.request_digest != digest:
        raise KeyReused(
            f"The Idempotency-Key {key} came with another request before;"
            " a new request needs a new key."
        )
    assert found.status is not None
    assert found.body is not None
    return StoredResponse(status=found.status, location=found.location, body=found.body)


async def store_response(
    session: AsyncSession, answer: StoredResponse, *, operation: str, key: str
) -> None:
    """Store the answer of a request whose key the caller has claimed in this transaction."""
    await session.execute(
        update(IdempotencyKey)
        .where(col(IdempotencyKey.operation) == operation, col(IdempotencyKey.key) == key)
        .values(status=answer.status, location=answer.location, body=answer.body)
    )


async def _forget(session: AsyncSession, oldest: object) -> None:
    table = IdempotencyKey
    key = tuple_(col(table.operation), col(table.key))
    expired = (
        select(table.operation, table.key)
        .where(col(table.created_at) < oldest)
        .order_by(col(table.created_at))
        .limit(EXPIRED_KEYS_PER_CLAIM)
        .with_for_update(skip_locked=True)
    )
    await session.execute(
        delete(table).where(key.in_(expired)).execution_options(synchronize_session=False)
    )
