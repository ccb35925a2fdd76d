"""Which part of a list does a request ask for?"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from daybook_domain.fields import LARGEST_ID

LAST_PAGE = 10_000
"""Deeper ones are read through all that comes before: filters find what is old."""

PathId = Annotated[int, Field(ge=1, le=LARGEST_ID)]
"""A key in a path or a query, where all is text."""


class PageQuery(BaseModel):
    """Which page of a list, newest first."""

    model_config = ConfigDict(extra="forbid")

    count: Annotated[int, Field(ge=1, le=100, description="How many to a page.")] = 10
    page: Annotated[int, Field(ge=1, le=LAST_PAGE, description="From 1.")] = 1

    @property
    def offset(self) -> int:
        """How many come before this page."""
        return (self.page - 1) * self.count
