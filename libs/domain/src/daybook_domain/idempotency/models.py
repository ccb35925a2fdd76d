"""What is stored of requests that may come twice?"""

from datetime import datetime

from sqlalchemy import Index, LargeBinary
from sqlmodel import Field

from daybook_domain.types import Table, created_at


class IdempotencyKey(Table, table=True):
    """A key that a caller gave to a request, and how the request was answered.

    Written in the transaction of the request's effect: a row means that there was one.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)

    operation: str = Field(primary_key=True, max_length=200)
    key: str = Field(primary_key=True, max_length=200)
    request_digest: str = Field(max_length=64)
    status: int | None = Field(default=None)
    """Null only while the transaction that answers is going on."""
    location: str | None = Field(default=None, max_length=500)
    body: bytes | None = Field(default=None, sa_type=LargeBinary)
    created_at: datetime = created_at()
