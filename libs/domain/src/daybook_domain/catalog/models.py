"""Tables of users, addresses and products."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, Index, text
from sqlmodel import Field

from daybook_domain.types import Table, created_at, identity, money, reference, updated_at


class User(Table, table=True):
    """A customer."""

    __tablename__ = "users"
    __table_args__ = (Index("ix_users_created_at", "created_at", "id"),)

    id: int | None = identity()
    username: str = Field(max_length=100, unique=True)
    email: str = Field(max_length=320, unique=True)
    description: str | None = Field(default=None, max_length=500)
    created_at: datetime = created_at()
    updated_at: datetime = updated_at()


class Address(Table, table=True):
    """A delivery address of a user; at most one of a user is primary."""

    __tablename__ = "addresses"
    __table_args__ = (
        Index("ix_addresses_user_id", "user_id", "created_at", "id"),
        Index("uq_addresses_primary", "user_id", unique=True, postgresql_where=text("is_primary")),
    )

    id: int | None = identity()
    user_id: int = reference("users.id")
    street: str = Field(max_length=200)
    city: str = Field(max_length=100)
    state: str | None = Field(default=None, max_length=100)
    zip_code: str = Field(max_length=20)
    country: str = Field(max_length=100)
    is_primary: bool = Field(default=False)
    created_at: datetime = created_at()
    updated_at: datetime = updated_at()


class Product(Table, table=True):
    """A product that can be ordered, with its price and stock."""

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint("price > 0", name="price_positive"),
        CheckConstraint("stock_quantity >= 0", name="stock_not_negative"),
        Index("ix_products_created_at", "created_at", "id"),
    )

    id: int | None = identity()
    name: str = Field(max_length=200)
    description: str | None = Field(default=None, max_length=1000)
    price: Decimal = Field(sa_type=money())
    stock_quantity: int = Field(default=0)
    created_at: datetime = created_at()
    updated_at: datetime = updated_at()
