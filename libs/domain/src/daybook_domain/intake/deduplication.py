"""Deduplication of messages: message ids, and receipts of committed batches.

RabbitMQ redelivers a message unless it received the acknowledgement. Messages with a message id are
recognised by it. Others have none, and two with the same body may both be intended; so each batch
inserts a *receipt* with the digests of these messages, in its own transaction, and deletes it once
RabbitMQ has confirmed the acknowledgements. A redelivered message whose digest is in a receipt was
committed before; it removes that digest from the receipt.

A receipt also tells whether a batch was committed when the connection broke during COMMIT. A batch
that looks up receipts first waits for all concurrent batches, including those of workers that were
killed or paused in the middle: see docs/adr/0005.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from datetime import timedelta
from hashlib import blake2b
from uuid import UUID

from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.advisory_locks import INTAKE_BATCH

_BEGIN_BATCH = """
    SELECT set_config('idle_in_transaction_session_timeout', :idle_timeout, true),
        {lock}(:lock_class, 0)
"""
_INSERT_RECEIPT = text(
    """
    INSERT INTO intake_receipts (consumer, number, digests)
    VALUES (:consumer, :number, CAST(:digests AS bytea[]))
    ON CONFLICT DO NOTHING RETURNING number
    """
)
_DELETE_RECEIPT = text(
    "DELETE FROM intake_receipts WHERE consumer = :consumer AND number = :number"
)
_SELECT_RECEIPTS = text(
    """
    SELECT consumer, number, digests FROM intake_receipts
    WHERE consumer <> :consumer AND digests && CAST(:digests AS bytea[])
    ORDER BY consumer, number FOR UPDATE
    """
)
_UPDATE_RECEIPT = text(
    "UPDATE intake_receipts SET digests = CAST(:digests AS bytea[])"
    " WHERE consumer = :consumer AND number = :number"
)
# Inserted in the order of the primary key, so that batches that share ids do not deadlock.
_INSERT_MESSAGE_IDS = text(
    """
    INSERT INTO intake_messages (queue, message_id, digest)
    SELECT queue, message_id, digest FROM unnest(
        CAST(:queues AS text[]), CAST(:message_ids AS text[]), CAST(:digests AS bytea[])
    ) AS input(queue, message_id, digest)
    ORDER BY queue, message_id
    ON CONFLICT DO NOTHING RETURNING queue, message_id
    """
)
_SELECT_MESSAGE_IDS = text(
    """
    SELECT queue, message_id, digest FROM intake_messages
    WHERE (queue, message_id) IN (
        SELECT * FROM unnest(CAST(:queues AS text[]), CAST(:message_ids AS text[]))
    )
    """
)
_DELETE_EXPIRED_MESSAGE_IDS = text(
    """
    DELETE FROM intake_messages WHERE (queue, message_id) IN (
        SELECT queue, message_id FROM intake_messages
        WHERE created_at < now() - CAST(:age AS interval) ORDER BY created_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ) RETURNING 1
    """
)
_LIST_RECEIPTS = text(
    "SELECT consumer, number FROM intake_receipts ORDER BY created_at LIMIT :limit"
)
_DELETE_RECEIPTS = text(
    """
    DELETE FROM intake_receipts WHERE (consumer, number) IN (
        SELECT * FROM unnest(CAST(:consumers AS uuid[]), CAST(:numbers AS bigint[]))
    )
    """
)

_MAX_LISTED_RECEIPTS = 10_000

MessageKey = tuple[str, str]
"""Queue and message id."""

ReceiptKey = tuple[UUID, int]
"""Consumer and number of a batch."""


def digest(queue: str, body: bytes) -> bytes:
    """Return a digest that identifies a body within its queue."""
    return blake2b(body, digest_size=16, key=queue.encode()[:64]).digest()


async def begin_batch(session: AsyncSession, *, exclusive: bool, idle_timeout: timedelta) -> None:
    """Begin a batch; an `exclusive` one waits for all concurrent batches to end.

    Postgres rolls it back when its worker sends nothing for `idle_timeout`.
    """
    lock = "pg_advisory_xact_lock" if exclusive else "pg_advisory_xact_lock_shared"
    await session.execute(
        text(_BEGIN_BATCH.format(lock=lock)),
        {
            "idle_timeout": f"{idle_timeout // timedelta(milliseconds=1)}ms",
            "lock_class": INTAKE_BATCH,
        },
    )


async def record_receipt(
    session: AsyncSession, consumer: UUID, *, number: int, digests: Sequence[bytes]
) -> bool:
    """Insert the receipt of a batch; return False if this batch was already committed."""
    inserted = await session.execute(
        _INSERT_RECEIPT, {"consumer": consumer, "number": number, "digests": digests}
    )
    return inserted.scalar_one_or_none() is not None


async def delete_receipt(session: AsyncSession, consumer: UUID, *, number: int) -> None:
    """Delete the receipt of a batch whose acknowledgement RabbitMQ has confirmed.

    Called immediately, in a transaction of its own: until then, a redelivered message with the same
    body from another batch is mistaken for one of this batch. If a crash of Postgres loses the
    delete, the same can happen until the receipt expires (docs/adr/0016), so the commit is
    asynchronous.
    """
    await session.execute(text("SET LOCAL synchronous_commit = off"))
    await session.execute(_DELETE_RECEIPT, {"consumer": consumer, "number": number})


async def consume_receipts(
    session: AsyncSession, consumer: UUID, digests: Sequence[bytes]
) -> Counter[bytes]:
    """Return how many messages of each of `digests` other consumers have committed.

    Removes as many digests from their receipts.
    """
    wanted, found = Counter(digests), Counter[bytes]()
    receipts = await session.execute(
        _SELECT_RECEIPTS, {"consumer": consumer, "digests": list(wanted)}
    )
    for receipt in receipts.all():
        remaining = []
        for each in receipt.digests:
            if found[each] < wanted[each]:
                found[each] += 1
            else:
                remaining.append(each)
        await session.execute(
            _UPDATE_RECEIPT,
            {"consumer": receipt.consumer, "number": receipt.number, "digests": remaining},
        )
    return found


async def record_message_ids(
    session: AsyncSession, digests: Mapping[MessageKey, bytes]
) -> Mapping[MessageKey, bytes]:
    """Insert message ids; return those that existed, with the digests of the first messages."""
    keys = list(digests)
    values = {"queues": [key[0] for key in keys], "message_ids": [key[1] for key in keys]}
    inserted = await session.execute(
        _INSERT_MESSAGE_IDS, values | {"digests": list(digests.values())}
    )
    new: Set[MessageKey] = {(row.queue, row.message_id) for row in inserted}
    existing = [key for key in keys if key not in new]
    if not existing:
        return {}
    values = {"queues": [key[0] for key in existing], "message_ids": [key[1] for key in existing]}
    rows = await session.execute(_SELECT_MESSAGE_IDS, values)
    return {(row.queue, row.message_id): row.digest for row in rows}


async def list_receipts(session: AsyncSession) -> list[ReceiptKey]:
    """Return the oldest receipts."""
    rows = await session.execute(_LIST_RECEIPTS, {"limit": _MAX_LISTED_RECEIPTS})
    return [(row.consumer, row.number) for row in rows]


async def delete_receipts(session: AsyncSession, receipts: Sequence[ReceiptKey]) -> None:
    """Delete receipts whose messages RabbitMQ would have redelivered by now."""
    values = {
        "consumers": [consumer for consumer, _ in receipts],
        "numbers": [number for _, number in receipts],
    }
    await session.execute(_DELETE_RECEIPTS, values)


async def delete_expired_message_ids(
    session: AsyncSession, *, older_than: timedelta, limit: int
) -> bool:
    """Delete at most `limit` expired message ids; return whether more may have expired."""
    values = {"age": older_than, "limit": limit}
    deleted = (await session.execute(_DELETE_EXPIRED_MESSAGE_IDS, values)).all()
    return len(deleted) == limit
