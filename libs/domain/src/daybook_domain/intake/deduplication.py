"""Was this message taken in before?

RabbitMQ delivers a message again when it does not know that it was acknowledged. Messages with an
id are told by that. Plain ones have none, and two of the same body may both be meant; so a batch
leaves a *receipt* with the digests of its plain messages, in its own transaction, and takes it
back once RabbitMQ has proven that it knows of the acknowledgements. A plain message that comes
*again* and that a receipt names was committed: it uses up that entry of the receipt.

A receipt also tells whether a batch was committed when the connection broke during the COMMIT, and
whoever looks for receipts first waits for all batches under way, also those of workers that were
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

_LONGEST_SILENCE_MILLISECONDS = 30_000
"""A batch whose worker falls silent in the middle of it is rolled back after so long."""

_BEGIN = """
    SELECT set_config('idle_in_transaction_session_timeout', :silence, true), {lock}(:turn, 0)
"""
_RECORD = text(
    """
    INSERT INTO intake_receipts (consumer, number, digests)
    VALUES (:consumer, :number, CAST(:digests AS bytea[]))
    ON CONFLICT DO NOTHING RETURNING number
    """
)
_FORGET = text("DELETE FROM intake_receipts WHERE consumer = :consumer AND number = :number")
_FIND_RECEIPTS = text(
    """
    SELECT consumer, number, digests FROM intake_receipts
    WHERE consumer <> :consumer AND digests && CAST(:digests AS bytea[])
    ORDER BY consumer, number FOR UPDATE
    """
)
_USE_UP = text(
    "UPDATE intake_receipts SET digests = CAST(:digests AS bytea[])"
    " WHERE consumer = :consumer AND number = :number"
)
# In the order of the key, so that two batches with the same ids do not wait crosswise.
_REMEMBER = text(
    """
    INSERT INTO intake_messages (queue, message_id, digest)
    SELECT queue, message_id, digest FROM unnest(
        CAST(:queues AS text[]), CAST(:message_ids AS text[]), CAST(:digests AS bytea[])
    ) AS given(queue, message_id, digest)
    ORDER BY queue, message_id
    ON CONFLICT DO NOTHING RETURNING queue, message_id
    """
)
_RECALL = text(
    """
    SELECT queue, message_id, digest FROM intake_messages
    WHERE (queue, message_id) IN (
        SELECT * FROM unnest(CAST(:queues AS text[]), CAST(:message_ids AS text[]))
    )
    """
)
_EXPIRE_MESSAGES = text(
    """
    DELETE FROM intake_messages WHERE (queue, message_id) IN (
        SELECT queue, message_id FROM intake_messages
        WHERE created_at < now() - CAST(:age AS interval) ORDER BY created_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ) RETURNING 1
    """
)
_EXPIRE_RECEIPTS = text(
    "DELETE FROM intake_receipts WHERE created_at < now() - CAST(:age AS interval)"
)

MessageKey = tuple[str, str]
"""Queue and message id."""


def digest(queue: str, body: bytes) -> bytes:
    """Return what tells one content of a queue from another."""
    return blake2b(body, digest_size=16, key=queue.encode()[:64]).digest()


async def begin_batch(session: AsyncSession, *, alone: bool) -> None:
    """Begin a batch; `alone`: after all others that are under way have ended."""
    lock = "pg_advisory_xact_lock" if alone else "pg_advisory_xact_lock_shared"
    await session.execute(
        text(_BEGIN.format(lock=lock)),
        {"silence": str(_LONGEST_SILENCE_MILLISECONDS), "turn": INTAKE_BATCH},
    )


async def record_receipt(
    session: AsyncSession, consumer: UUID, *, number: int, digests: Sequence[bytes]
) -> bool:
    """Leave the receipt of a batch.

    False, and nothing is changed: this very batch was committed before.
    """
    recorded = await session.execute(
        _RECORD, {"consumer": consumer, "number": number, "digests": digests}
    )
    return recorded.scalar_one_or_none() is not None


async def delete_receipt(session: AsyncSession, consumer: UUID, *, number: int) -> None:
    """Take back the receipt of a batch of which RabbitMQ has proven that it knows.

    At once and on its own: until then a plain message of the same body that is delivered again
    for another reason is taken for one of that batch. Losing this in a crash of Postgres costs no
    more than that, so nobody waits for the disk.
    """
    await session.execute(text("SET LOCAL synchronous_commit = off"))
    await session.execute(_FORGET, {"consumer": consumer, "number": number})


async def consume_receipts(
    session: AsyncSession, consumer: UUID, digests: Sequence[bytes]
) -> Counter[bytes]:
    """Return how many messages of each of `digests` other consumers had committed.

    As many entries of their receipts are used up.
    """
    wanted, found = Counter(digests), Counter[bytes]()
    receipts = await session.execute(
        _FIND_RECEIPTS, {"consumer": consumer, "digests": list(wanted)}
    )
    for receipt in receipts.all():
        kept = []
        for entry in receipt.digests:
            if found[entry] < wanted[entry]:
                found[entry] += 1
            else:
                kept.append(entry)
        await session.execute(
            _USE_UP, {"consumer": receipt.consumer, "number": receipt.number, "digests": kept}
        )
    return found


async def record_message_ids(
    session: AsyncSession, digests: Mapping[MessageKey, bytes]
) -> Mapping[MessageKey, bytes]:
    """Remember messages by their ids; return those that were known, with their first digests."""
    keys = list(digests)
    values = {"queues": [key[0] for key in keys], "message_ids": [key[1] for key in keys]}
    added = await session.execute(_REMEMBER, values | {"digests": list(digests.values())})
    new: Set[MessageKey] = {(row.queue, row.message_id) for row in added}
    known = [key for key in keys if key not in new]
    if not known:
        return {}
    values = {"queues": [key[0] for key in known], "message_ids": [key[1] for key in known]}
    recalled = await session.execute(_RECALL, values)
    return {(row.queue, row.message_id): row.digest for row in recalled}


async def delete_expired(
    session: AsyncSession, *, messages_after: timedelta, receipts_after: timedelta, limit: int
) -> bool:
    """Forget at most `limit` messages, and the receipts of consumers that are long gone.

    True when there may be more to forget.
    """
    await session.execute(_EXPIRE_RECEIPTS, {"age": receipts_after})
    values = {"age": messages_after, "limit": limit}
    forgotten = (await session.execute(_EXPIRE_MESSAGES, values)).all()
    return len(forgotten) == limit
