"""/events: runs, days and backfills as they change, as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from daybook_api.dependencies import App
from daybook_api.event_hub import EventKind, Subscription

router = APIRouter(tags=["events"])


async def _subscribe(
    app: App,
    last_event_id: Annotated[
        str | None, Header(description="The `id` of the last event that was read.", max_length=100)
    ] = None,
) -> AsyncIterator[Subscription]:
    with app.events.subscribed(after=last_event_id) as subscription:
        yield subscription


Subscribed = Annotated[Subscription, Depends(_subscribe)]


@router.get("/events", response_class=EventSourceResponse)
async def events(
    subscription: Subscribed,
    kind: Annotated[list[EventKind] | None, Query(description="One or more.")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Tell of runs, days and backfills as they change; on `reset`, look at them again."""
    wanted = {*kind, EventKind.MANY, EventKind.RESET} if kind else set(EventKind)
    while news := await subscription.news():
        for event in news:
            if event.kind in wanted:
                yield ServerSentEvent(id=event.id, event=event.kind.value, data=event.data)
