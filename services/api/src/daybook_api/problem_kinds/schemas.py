"""Response bodies of problem kinds."""

from typing import Self

from pydantic import BaseModel, Field

from daybook_api.problem_catalogue import ProblemKind
from daybook_api.problems import problem_type


class ProblemKindOut(BaseModel):
    """A kind of problem."""

    type: str = Field(description="The URI that problem documents of this kind have as `type`.")
    code: str = Field(description="The identifier of the kind of problem. Stable.")
    status: int | None = Field(
        description="The HTTP status code; null if the code appears outside responses only."
    )
    meaning: str = Field(description="What is wrong.")
    action: str = Field(description="What to do.")

    @classmethod
    def of(cls, kind: ProblemKind) -> Self:
        """Return the response body for a kind."""
        return cls(
            type=problem_type(kind.code),
            code=kind.code,
            status=kind.status,
            meaning=kind.meaning,
            action=kind.action,
        )


class ProblemKinds(BaseModel):
    """All kinds of problems."""

    problems: list[ProblemKindOut]
