"""Request and response bodies of products."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from daybook_api.money import Money
from daybook_api.pagination import PageQuery
from daybook_domain.catalog.products import NewProduct
from daybook_domain.catalog.validation import (
    MAX_AMOUNT,
    Price,
    ProductDescription,
    ProductName,
    Stock,
)
from daybook_domain.validation import Storable


class ProductIn(BaseModel):
    """A product to create."""

    model_config = ConfigDict(extra="forbid")

    name: ProductName
    description: ProductDescription | None = None
    price: Price
    stock_quantity: Stock | None = 0

    def to_domain(self) -> NewProduct:
        """Return the product to create."""
        return NewProduct(
            name=self.name,
            description=self.description,
            price=self.price,
            stock_quantity=self.stock_quantity or 0,
        )


class ProductPatch(BaseModel):
    """Changes of a product; omitted and null fields remain as they are."""

    model_config = ConfigDict(extra="forbid")

    name: ProductName | None = None
    description: ProductDescription | None = None
    price: Price | None = None
    stock_quantity: Stock | None = None


class ProductOut(BaseModel):
    """A product of the catalogue."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    description: str | None
    price: Money
    stock_quantity: int = Field(description="Number of pieces in stock.")
    created_at: datetime
    updated_at: datetime


class Products(BaseModel):
    """A page of products, newest first."""

    products: list[ProductOut]
    total: int


PriceBound = Annotated[
    Decimal,
    # Postgres accepts no number with more than 16,383 decimal places.
    Field(ge=0, le=MAX_AMOUNT, decimal_places=20),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": float(MAX_AMOUNT)}),
]


class ProductsQuery(PageQuery):
    """Filters and page of the list of products."""

    name: Annotated[
        str | None,
        StringConstraints(max_length=200),
        Storable,
        Field(description="Text within the name, ignoring case."),
    ] = None
    min_price: PriceBound | None = None
    max_price: PriceBound | None = None
