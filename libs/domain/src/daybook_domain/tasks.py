"""Task contracts, and the protocol of the queue that they are sent to."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True)
class Task(Generic[P]):
    """The contract of a task: its name, payload model and timeout.

    `name` is part of the wire format and must not change while messages may be in flight;
    `payload` carries ids, not data, and only gains optional fields.
    """

    name: str
    payload: type[P]
    timeout: timedelta


class TaskQueue(Protocol):
    """A destination of tasks; a protocol, so that the domain depends on no message broker."""

    async def send(self, task: Task[P], payload: P) -> None:
        """Send one task; return when the broker has confirmed it.

        Raises `Unavailable` when the broker cannot confirm it at present.
        """
        ...


class Interrupted(Exception):
    """The handler stopped before it finished, because its worker shuts down: requeue the task."""
