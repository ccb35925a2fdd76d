"""Request and response bodies of addresses."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from daybook_domain.catalog.validation import City, Country, State, Street, ZipCode
from daybook_domain.validation import unset_field


class AddressIn(BaseModel):
    """An address to create; a primary one replaces the previous primary address."""

    model_config = ConfigDict(extra="forbid")

    street: Street
    city: City
    state: State | None = None
    zip_code: ZipCode
    country: Country
    is_primary: bool = False


class AddressPatch(BaseModel):
    """Changes of an address; omitted fields remain as they are."""

    model_config = ConfigDict(extra="forbid")

    street: Street = unset_field()
    city: City = unset_field()
    state: State | None = None
    zip_code: ZipCode = unset_field()
    country: Country = unset_field()
    is_primary: bool = unset_field()


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
