"""What is a task contract? (and the TaskQueue protocol)"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from pydantic import BaseModel

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True)
class Task(Generic[P]):
    """What may be asked of a worker.

    `name` travels on the wire and is never renamed while messages may be in flight; `payload`
    carries ids, not data, and only ever gains optional fields.
    """

    name: str
    payload: type[P]
    timeout: timedelta


class TaskQueue(Protocol):
    """Where tasks are sent; keeps the message broker out of the domain."""

    async def send(self, task: Task[P], payload: P) -> None:
        """Send one task; returns once the broker has taken responsibility for it.

        Raises `Unavailable` when that cannot be had now.
        """
        ...


class Interrupted(Exception):
    """Raised by a handler that gives its task back unfinished, because its worker is leaving."""
