"""Tables of dead letters, and of message ids and receipts for deduplication."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Index, LargeBinary, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, identity, reference, text_enum


class DeadLetterState(StrEnum):
    """The state of a dead letter."""

    WAITING = "waiting"
    """Retried automatically: a row that it refers to may be created, or a redrive was requested."""
    KEPT = "kept"
    """Not retried until a person edits, redrives or discards it."""
    REDRIVEN = "redriven"
    """Processed successfully."""
    DISCARDED = "discarded"
    """Closed by a person without being processed."""


class DeadLetter(Table, table=True):
    """A message that could not be processed, with the reason."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        Index("ix_dead_letters_state", "state", "id"),
        Index(
            "ix_dead_letters_due", "available_at", "id", postgresql_where=text("state = 'waiting'")
        ),
        Index(
            "ix_dead_letters_subject",
            "subject",
            "queue",
            "id",
            postgresql_where=text("state = 'waiting'"),
        ),
    )

    id: int | None = identity()
    queue: str = Field(max_length=255)
    """The queue to which it was published."""
    message_id: str | None = Field(default=None, max_length=255)
    body: bytes = Field(sa_type=LargeBinary)
    headers: dict[str, Any] = Field(sa_type=JSONB)
    reason_code: str = Field(max_length=100)
    reason: str = Field(max_length=2000)
    attempts: int = Field(default=1)
    begun: int = Field(default=0)
    """Number of attempts started since the last one that completed."""
    first_failed_at: datetime = Field(sa_type=UtcDateTime)
    last_failed_at: datetime = Field(sa_type=UtcDateTime)
    state: DeadLetterState = Field(sa_type=text_enum(DeadLetterState, name="state"))
    subject: str | None = Field(default=None, max_length=50)
    """The row that it updates or waits for, such as `product:7`.

    Updates of one subject are processed in order.
    """
    available_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Earliest time of the next attempt, while it waits."""
    give_up_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """Time after which a failed attempt is the last; null if a redrive was requested."""
    version: int = Field(default=1)
    """Incremented by each edit of the body, so that no edit overwrites another."""
    actor: str | None = Field(default=None, max_length=200)
    """The person who made the last decision."""
    note: str | None = Field(default=None, max_length=500)
    created_at: datetime = created_at()


class DeadLetterActionType(StrEnum):
    """The type of an action on a dead letter."""

    EDIT = "edit"
    """A person replaced the body."""
    REDRIVE = "redrive"
    """A person requested another attempt."""
    PROCESSED = "processed"
    """A worker processed it."""
    REFUSED = "refused"
    """A worker made the last attempt, which failed."""
    DISCARD = "discard"
    """A person closed it without processing."""


class DeadLetterAction(Table, table=True):
    """An entry of the append-only log of actions on dead letters."""

    __tablename__ = "dead_letter_actions"

    id: int | None = identity()
    dead_letter_id: int = reference("dead_letters.id", index=True, ondelete="CASCADE")
    action: DeadLetterActionType = Field(sa_type=text_enum(DeadLetterActionType, name="action"))
    actor: str = Field(max_length=200)
    note: str | None = Field(default=None, max_length=2000)
    digest_before: str | None = Field(default=None, max_length=64)
    digest_after: str | None = Field(default=None, max_length=64)
    created_at: datetime = created_at()


class IntakeMessage(Table, table=True):
    """The message id of a committed message; a second message with the same id has no effect."""

    __tablename__ = "intake_messages"
    __table_args__ = (Index("ix_intake_messages_created_at", "created_at"),)

    queue: str = Field(primary_key=True, max_length=255)
    message_id: str = Field(primary_key=True, max_length=255)
    digest: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = created_at()


class IntakeReceipt(Table, table=True):
    """A committed batch whose acknowledgement RabbitMQ may not have received.

    `digests` are those of its messages without a message id, which are recognised by them when
    they are redelivered.
    """

    __tablename__ = "intake_receipts"

    consumer: UUID = Field(primary_key=True)
    """The consumer that received the batch."""
    number: int = Field(primary_key=True, sa_type=BigInteger)
    digests: list[bytes] = Field(sa_type=ARRAY(LargeBinary))
    created_at: datetime = created_at()
