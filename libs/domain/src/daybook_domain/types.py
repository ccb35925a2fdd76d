"""The base class and the column types of all tables."""

from enum import StrEnum
from typing import Any, ClassVar, Literal

from sqlalchemy import BigInteger, Enum, Identity, MetaData, Numeric, func
from sqlmodel import Field, SQLModel
from sqlmodel.sql.sqltypes import UTCDateTime

UtcDateTime = UTCDateTime
"""`timestamptz`; rejects naive values, returns aware UTC ones."""


class Table(SQLModel):
    """The base class of all tables; its metadata names every constraint."""

    metadata: ClassVar[MetaData] = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def identity() -> Any:
    """Return the field of a `BIGINT GENERATED ALWAYS AS IDENTITY` primary key."""
    return Field(
        default=None,
        primary_key=True,
        sa_type=BigInteger,
        sa_column_args=[Identity(always=True)],
    )


def reference(
    target: str,
    *,
    nullable: bool = False,
    index: bool = False,
    ondelete: Literal["CASCADE", "RESTRICT"] = "RESTRICT",
) -> Any:
    """Return the field of a BIGINT foreign key to `target` (`table.column`)."""
    return Field(
        default=None if nullable else ...,
        foreign_key=target,
        ondelete=ondelete,
        sa_type=BigInteger,
        nullable=nullable,
        index=index,
    )


def created_at() -> Any:
    """Return the field of an instant that the database sets on insert."""
    return Field(
        default=None,
        sa_type=UtcDateTime,
        nullable=False,
        sa_column_kwargs={"server_default": func.now()},
    )


def updated_at() -> Any:
    """Return the field of an instant that is set on insert and on each update of its row."""
    return Field(
        default=None,
        sa_type=UtcDateTime,
        nullable=False,
        sa_column_kwargs={"server_default": func.now(), "onupdate": func.now()},
    )


def money() -> Any:
    """Return the type of an amount of money: exact, two decimal places."""
    return Numeric(12, 2)


def text_enum(enum: type[StrEnum], *, name: str) -> Any:
    """Return the type of an enum stored as the text of its value, with a CHECK named `name`.

    Not SQLModel's default, a native enum of member names: removing a value from one requires a
    new type.
    """
    return Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )
