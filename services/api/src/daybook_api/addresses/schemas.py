"""Request and response bodies of addresses."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from daybook_domain.catalog.validation import City, Country, State, Street, ZipCode


class AddressIn(BaseModel):
    """An address to create; a primary one replaces the previous primary address."""

    model_config = ConfigDict(extra="forbid")

    street: Street
    city: City
    state: State | None = None
    zip_code: ZipCode
    country: Country
    is_primary: bool | None = False


class AddressPatch(BaseModel):
    """Changes of an address; omitted and null fields remain as they are."""

    model_config = ConfigDict(extra="forbid")

    street: Street | None = None
    city: City | None = None
    state: State | None = None
    zip_code: ZipCode | None = None
    country: Country | None = None
    is_primary: bool | None = None


class AddressOut(BaseModel):
    """A delivery address of a user."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    user_id: int
    street: str
    city: str
    state: str | None
    zip_code: str
    country: str
    is_primary: bool
    created_at: datetime
    updated_at: datetime


class Addresses(BaseModel):
    """A page of a user's addresses, newest first."""

    addresses: list[AddressOut]
    total: int
