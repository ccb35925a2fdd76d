"""Request and response bodies of health."""

from datetime import date
from typing import Literal

from pydantic import BaseModel

from daybook_api.errors import Problem


class Liveness(BaseModel):
    """The event loop turns."""

    status: Literal["ok"] = "ok"


class Dependency(BaseModel):
    """How something that we depend on does."""

    status: Literal["up", "down"]
    seconds: float
    """How long it took to find out."""
    detail: str | None = None


class Readiness(BaseModel):
    """Requests can be answered."""

    status: Literal["ready"] = "ready"
    dependencies: dict[str, Dependency]
    late_days: list[date]
    """Reports that should be there and are not: the last month of them."""


class NotReady(Problem):
    """Requests cannot be answered, because of the dependencies that are down."""

    dependencies: dict[str, Dependency]
