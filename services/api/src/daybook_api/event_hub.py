"""Fan-out of change notifications to the readers of server-sent events.

    Postgres ── NOTIFY ──▶ EventHub ──▶ EventSubscription (bounded) ──▶ reader

A reader that is too slow is disconnected and may reconnect, so no buffer grows without bound (P12).
Events are not a record: a reader that missed some receives `reset` and has to query again.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from secrets import token_hex
from typing import Any

import structlog

from daybook_domain.errors import Unavailable

log = structlog.stdlib.get_logger(__name__)

HISTORY_SIZE = 1000
"""Number of the latest events that a reconnecting reader can still receive."""

MAX_BACKLOG = 512
"""Maximum number of events that wait for one reader."""


class EventKind(StrEnum):
    """The kind of a change."""

    RUN = "run"
    """A run changed."""
    DAY = "day"
    """The report of a day changed."""
    BACKFILL = "backfill"
    """A backfill changed."""
    MANY = "many"
    """One statement changed so many rows that they are not listed one by one."""
    RESET = "reset"
    """Events may have been missed; query the current state again."""


@dataclass(frozen=True)
class ChangeEvent:
    """A change of a run, a day or a backfill."""

    id: str
    kind: EventKind
    data: dict[str, Any]


class EventSubscription:
    """The events that one reader has not received yet."""

    def __init__(self) -> None:
        self._backlog: deque[ChangeEvent] = deque()
        self._readable = asyncio.Event()
        self._closed = False

    def push(self, event: ChangeEvent) -> None:
        """Append an event, or close the subscription if its backlog is full."""
        if len(self._backlog) >= MAX_BACKLOG:
            self._backlog.clear()
            self.close()
        if not self._closed:
            self._backlog.append(event)
            self._readable.set()

    def close(self) -> None:
        """Accept no further events; those in the backlog can still be read."""
        self._closed = True
        self._readable.set()

    @property
    def is_closed(self) -> bool:
        """Whether no further events will be accepted."""
        return self._closed

    async def next_events(self) -> Sequence[ChangeEvent]:
        """Wait for events and return all of the backlog; nothing once closed and read."""
        await self._readable.wait()
        events = list(self._backlog)
        self._backlog.clear()
        if not self._closed:
            self._readable.clear()
        return events


class EventHub:
    """The distributor of change notifications within one process."""

    def __init__(self, *, max_subscriptions: int) -> None:
        """Allow up to `max_subscriptions` readers at the same time."""
        self._max_subscriptions = max_subscriptions
        self._subscriptions: set[EventSubscription] = set()
        self._history: deque[ChangeEvent] = deque(maxlen=HISTORY_SIZE)
        # A counter alone would repeat the ids of another process.
        self._id_prefix = token_hex(4)
        self._count = 0
        self._closed = False

    def publish(self, payload: str) -> None:
        """Send the JSON payload of a Postgres notification to all readers.

        One that cannot be parsed, such as a kind of a later release, becomes a reset: readers query
        the current state.
        """
        try:
            data = json.loads(payload)
            kind = EventKind(data.pop("kind"))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            log.warning("notification not understood", payload=payload[:200], reason=repr(error))
            self.publish_reset()
            return
        self._send(kind, data)

    def publish_reset(self) -> None:
        """Inform all readers that events may have been missed."""
        self._send(EventKind.RESET, {})

    def close(self) -> None:
        """Close all subscriptions, and those that are requested later."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()

    @contextmanager
    def subscribe(self, *, after: str | None = None) -> Iterator[EventSubscription]:
        """Yield a subscription to events from now on, or from behind the event with id `after`.

        Raises `Unavailable` when there are too many readers.
        """
        if len(self._subscriptions) >= self._max_subscriptions:
            raise Unavailable("Too many event readers are connected; please try again.")
        subscription = EventSubscription()
        for event in self._events_since(after):
            subscription.push(event)
        if self._closed:
            subscription.close()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def _events_since(self, after: str | None) -> Sequence[ChangeEvent]:
        if after is None:
            return []
        ids = [event.id for event in self._history]
        if after in ids:
            missed = list(self._history)[ids.index(after) + 1 :]
            if len(missed) <= MAX_BACKLOG:
                return missed
        # The event is too old, or another process sent it.
        return [ChangeEvent(self._latest_id(), EventKind.RESET, {})]

    def _send(self, kind: EventKind, data: dict[str, Any]) -> None:
        self._count += 1
        event = ChangeEvent(self._latest_id(), kind, data)
        self._history.append(event)
        for subscription in self._subscriptions:
            subscription.push(event)

    def _latest_id(self) -> str:
        return f"{self._id_prefix}-{self._count}"
