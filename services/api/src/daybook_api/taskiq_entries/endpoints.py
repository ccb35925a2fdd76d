"""GET /schedules/taskiq: entries of TaskIQ's schedule source."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from daybook_api.dependencies import App
from daybook_api.pagination import add_next_link
from daybook_api.taskiq_entries.schemas import TaskiqEntries, TaskiqEntriesQuery, TaskiqEntryOut
from daybook_domain.schedules import queries

router = APIRouter(prefix="/schedules", tags=["schedules"])


@router.get("/taskiq")
async def list_taskiq_entries(
    request: Request, response: Response, query: Annotated[TaskiqEntriesQuery, Query()], app: App
) -> TaskiqEntries:
    """List the entries of TaskIQ's schedule source in Redis, with the errors of invalid ones."""
    async with app.sessions() as session:
        found = await queries.list_taskiq_entries(
            session, broken=query.broken, after=query.after, limit=query.limit + 1
        )
    page = [TaskiqEntryOut.model_validate(entry) for entry in found[: query.limit]]
    next_id = page[-1].id if len(found) > query.limit else None
    if next_id is not None:
        add_next_link(request, response, after=next_id)
    return TaskiqEntries(entries=page, next=next_id)
