"""/problems: the kinds of problems, at the address that `type` of a problem document names."""

from typing import Annotated

from fastapi import APIRouter, Path

from daybook_api.problem_catalogue import KINDS
from daybook_api.problem_kinds.schemas import ProblemKindOut, ProblemKinds
from daybook_domain.errors import NotFound

router = APIRouter(prefix="/problems", tags=["problems"])


@router.get("")
async def list_problem_kinds() -> ProblemKinds:
    """List the kinds of problems."""
    return ProblemKinds(problems=[ProblemKindOut.of(kind) for kind in KINDS.values()])


@router.get("/{code}")
async def get_problem_kind(
    code: Annotated[str, Path(max_length=100, description="`code` of a problem document.")],
) -> ProblemKindOut:
    """Get what a kind of problem means and what to do."""
    if code not in KINDS:
        raise NotFound(f"There is no problem code {code}; GET /problems lists all codes.")
    return ProblemKindOut.of(KINDS[code])
