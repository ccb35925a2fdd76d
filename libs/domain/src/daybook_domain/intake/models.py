"""What is stored of messages that were taken in, and of those that could not be?"""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Index, LargeBinary, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from daybook_domain.types import Table, UtcDateTime, created_at, identity, reference, text_enum


class DeadLetterState(StrEnum):
    """What is to become of a dead letter?"""

    WAITING = "waiting"
    """It is tried again by itself: for what it refers to may come, or somebody asked for it."""
    KEPT = "kept"
    """It stays as it is until somebody decides."""
    REDRIVEN = "redriven"
    """It was processed after all."""
    DISCARDED = "discarded"
    """Somebody decided that it is not to be processed."""


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
    """The queue that it was sent to."""
    message_id: str | None = Field(default=None, max_length=255)
    body: bytes = Field(sa_type=LargeBinary)
    headers: dict[str, Any] = Field(sa_type=JSONB)
    reason_code: str = Field(max_length=100)
    reason: str = Field(max_length=2000)
    attempts: int = Field(default=1)
    begun: int = Field(default=0)
    """How many attempts have begun since the last one that came to an end."""
    first_failed_at: datetime = Field(sa_type=UtcDateTime)
    last_failed_at: datetime = Field(sa_type=UtcDateTime)
    state: DeadLetterState = Field(sa_type=text_enum(DeadLetterState, name="state"))
    subject: str | None = Field(default=None, max_length=50)
    """What it is about or waits for, such as `product:7`: one subject's letters keep their turn."""
    available_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """While it waits: not tried before."""
    give_up_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    """While it waits by itself: after this instant it is kept."""
    version: int = Field(default=1)
    """Grows with each edit of the body, so that no edit is lost to another."""
    actor: str | None = Field(default=None, max_length=200)
    """Who decided last."""
    note: str | None = Field(default=None, max_length=500)
    created_at: datetime = created_at()


class DeadLetterActionType(StrEnum):
    """What was done with a dead letter?"""

    EDIT = "edit"
    REDRIVE = "redrive"
    """Somebody asked for it to be processed again."""
    PROCESSED = "processed"
    """A worker processed it."""
    REFUSED = "refused"
    """A worker tried it again and keeps it."""
    DISCARD = "discard"


class DeadLetterAction(Table, table=True):
    """Who did what with a dead letter, and when; never changed."""

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
    """A message with an id that was taken in: a second one with it has no effect."""

    __tablename__ = "intake_messages"
    __table_args__ = (Index("ix_intake_messages_created_at", "created_at"),)

    queue: str = Field(primary_key=True, max_length=255)
    message_id: str = Field(primary_key=True, max_length=255)
    digest: bytes = Field(sa_type=LargeBinary)
    created_at: datetime = created_at()


class IntakeReceipt(Table, table=True):
    """A batch that was committed, for as long as RabbitMQ may not know it.

    `digests` are those of its messages without an id: when they come again, they are known by it.
    """

    __tablename__ = "intake_receipts"

    consumer: UUID = Field(primary_key=True)
    """Whom the batch was delivered to."""
    number: int = Field(primary_key=True, sa_type=BigInteger)
    digests: list[bytes] = Field(sa_type=ARRAY(LargeBinary))
    created_at: datetime = created_at()
