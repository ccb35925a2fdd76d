"""Table of idempotency keys."""

from datetime import datetime

from sqlalchemy import Index, LargeBinary
from sqlmodel import Field

from daybook_domain.types import Table, created_at


class IdempotencyKey(Table, table=True):
    """The idempotency key of a request, and the response to it.

    Written in the transaction of the request, so a row means that the request took effect.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)

    operation: str = Field(primary_key=True, max_length=200)
    key: str = Field(primary_key=True, max_length=200)
    request_digest: str = Field(max_length=64)
    status: int | None = Field(default=None)
    """The HTTP status; null only inside the transaction that processes the request."""
    location: str | None = Field(default=None, max_length=500)
    body: bytes | None = Field(default=None, sa_type=LargeBinary)
    created_at: datetime = created_at()
