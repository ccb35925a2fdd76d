"""Response bodies of the health endpoints."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, Field

from daybook_api.problems import Problem


class Liveness(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = "ok"


class DependencyStatus(BaseModel):
    """The state of a service that the API depends on."""

    status: Literal["up", "down"]
    seconds: float = Field(description="Duration of the check.")
    detail: str | None = Field(default=None, description="The reason if it is down.")


class Readiness(BaseModel):
    """The process can serve requests."""

    status: Literal["ready"] = "ready"
    dependencies: dict[str, DependencyStatus]
    late_days: list[date] = Field(
        description="Dates whose report is late, oldest first; at most the latest 31."
    )


class NotReady(Problem):
    """The process cannot serve requests, because a dependency is down."""

    dependencies: dict[str, DependencyStatus]
