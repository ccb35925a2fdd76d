"""GET /schedules/taskiq: entries of TaskIQ's schedule source."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from daybook_api.dependencies import App
from daybook_api.pagination import add_next_link, split_page
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
    page, last = split_page(found, limit=query.limit)
    next_id = None if last is None else last.id
    add_next_link(request, response, after=next_id)
    return TaskiqEntries(
        entries=[TaskiqEntryOut.model_validate(entry) for entry in page], next=next_id
    )
