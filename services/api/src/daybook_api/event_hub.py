"""What has just changed? One listener a process, and any number of readers (server-sent events).

    Postgres ── NOTIFY ──▶ Events ──▶ Subscription (bounded) ──▶ reader

Who reads too slowly is cut off and may come back; nothing grows for it (P12). Events are news and
no record: whoever missed some is told to look again.
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

from daybook_domain.errors import Unavailable

HISTORY_SIZE = 1000
"""How many of the latest events a reader that comes back can still get."""

MAX_BACKLOG = 512
"""By how many events a reader may be behind."""


class EventKind(StrEnum):
    """What has changed?"""

    RUN = "run"
    DAY = "day"
    BACKFILL = "backfill"
    MANY = "many"
    """So many rows at once that they are not told one by one."""
    RESET = "reset"
    """Something was missed: look again at what is shown."""


@dataclass(frozen=True)
class Event:
    """Something that has changed."""

    id: str
    kind: EventKind
    data: dict[str, Any]


class Subscription:
    """The events that one reader has not had yet."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._news = asyncio.Event()
        self._ended = False

    def add(self, event: Event) -> None:
        """Add an event; a reader that is too far behind is cut off instead."""
        if len(self._waiting) >= MAX_BACKLOG:
            self._waiting.clear()
            self.end()
        if not self._ended:
            self._waiting.append(event)
            self._news.set()

    def end(self) -> None:
        """Let nothing follow what is waiting."""
        self._ended = True
        self._news.set()

    @property
    def has_ended(self) -> bool:
        """Whether nothing follows what is waiting."""
        return self._ended

    async def news(self) -> Sequence[Event]:
        """Return what is waiting, as soon as there is something; nothing when it has ended."""
        await self._news.wait()
        waiting = list(self._waiting)
        self._waiting.clear()
        if not self._ended:
            self._news.clear()
        return waiting


class EventHub:
    """Passes on what the database tells."""

    def __init__(self, *, readers: int) -> None:
        """Serve up to so many readers at once."""
        self._readers = readers
        self._subscriptions: set[Subscription] = set()
        self._kept: deque[Event] = deque(maxlen=HISTORY_SIZE)
        self._process = token_hex(4)
        self._count = 0
        self._closed = False

    def tell(self, payload: str) -> None:
        """Pass on what was told on the channel."""
        data = json.loads(payload)
        self._pass_on(EventKind(data.pop("kind")), data)

    def reset(self) -> None:
        """Tell everybody that something may have been missed."""
        self._pass_on(EventKind.RESET, {})

    def close(self) -> None:
        """End all subscriptions, and begin no other."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.end()

    @contextmanager
    def subscribed(self, *, after: str | None = None) -> Iterator[Subscription]:
        """Give the events from now on, or after the one with the id `after`.

        Raises `Unavailable` when there are too many readers.
        """
        if len(self._subscriptions) >= self._readers:
            raise Unavailable("Too many are reading events; please try again.")
        subscription = Subscription()
        for event in self._since(after):
            subscription.add(event)
        if self._closed:
            subscription.end()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def _since(self, after: str | None) -> Sequence[Event]:
        if after is None:
            return []
        ids = [event.id for event in self._kept]
        if after in ids:
            missed = list(self._kept)[ids.index(after) + 1 :]
            if len(missed) <= MAX_BACKLOG:
                return missed
        # It is too long ago, or was told by another process.
        return [Event(self._id(), EventKind.RESET, {})]

    def _pass_on(self, kind: EventKind, data: dict[str, Any]) -> None:
        self._count += 1
        event = Event(self._id(), kind, data)
        self._kept.append(event)
        for subscription in self._subscriptions:
            subscription.add(event)

    def _id(self) -> str:
        return f"{self._process}-{self._count}"
