"""GET /events: changes of runs, days and backfills as server-sent events."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from daybook_api.event_hub import EventKind
from daybook_api.events.subscriptions import Subscribed

router = APIRouter(tags=["events"])


@router.head("/events", include_in_schema=False)
async def get_events_headers() -> Response:
    """Get the headers of the stream, without opening it."""
    return Response(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@router.get("/events", response_class=EventSourceResponse)
async def stream_events(
    subscription: Subscribed,
    kind: Annotated[
        list[EventKind] | None,
        Query(
            description="Kinds of events to receive; may be repeated. `many` and `reset` are always"
            " sent. Default: all."
        ),
    ] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Stream changes of runs, days and backfills.

    After a `reset` event some changes may have been missed; query the current state again.
    """
    kinds = {*kind, EventKind.MANY, EventKind.RESET} if kind else set(EventKind)
    while events := await subscription.next_events():
        for event in events:
            if event.kind in kinds:
                yield ServerSentEvent(id=event.id, event=event.kind.value, data=event.data)
