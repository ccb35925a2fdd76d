"""The dependency that subscribes a request to change events."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header

from daybook_api.dependencies import App
from daybook_api.event_hub import EventSubscription


async def _subscribe(
    app: App,
    last_event_id: Annotated[
        str | None, Header(description="The `id` of the last received event.", max_length=100)
    ] = None,
) -> AsyncIterator[EventSubscription]:
    with app.events.subscribe(after=last_event_id) as subscription:
        yield subscription


Subscribed = Annotated[EventSubscription, Depends(_subscribe)]
