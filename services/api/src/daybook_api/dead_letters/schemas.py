"""Request and response bodies of dead letters."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from daybook_api.pagination import PathId
from daybook_domain.intake import queries
from daybook_domain.intake.models import (
    DeadLetter,
    DeadLetterAction,
    DeadLetterActionType,
    DeadLetterState,
)
from daybook_domain.intake.parsing import decode_body
from daybook_domain.intake.queries import DeadLetterFilter
from daybook_domain.validation import Storable

MAX_REDRIVE = 100_000


_MOST_IDS = 100


Actor = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    Storable,
    Field(description="Who decides, for the record."),
]


Note = Annotated[str, StringConstraints(max_length=500, strip_whitespace=True), Storable]


Encoding = Annotated[
    Literal["utf-8", "base64"], Field(description="How `body` is to be read: text, or any bytes.")
]


Part = Annotated[str, StringConstraints(min_length=1, max_length=200), Storable]


class LetterOut(BaseModel):
    """A message that could not be processed."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    queue: str = Field(description="Where it was sent to.")
    message_id: str | None
    reason_code: str
    reason: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    state: DeadLetterState
    available_at: datetime | None = Field(description="While it waits: not tried before.")
    version: int = Field(description="Grows with each edit; a further edit has to name it.")
    actor: str | None = Field(description="Who decided last.")
    note: str | None
    excerpt: str = Field(description="The beginning of the body.")


class ActionOut(BaseModel):
    """What was done with a letter."""

    model_config = ConfigDict(from_attributes=True)

    action: DeadLetterActionType
    actor: str
    note: str | None
    digest_before: str | None = Field(description="SHA-256 of the body before.")
    digest_after: str | None
    created_at: datetime


class LetterDetail(LetterOut):
    """All that is known about a message that could not be processed."""

    body: str
    encoding: Encoding
    headers: dict[str, Any]
    actions: list[ActionOut]

    @classmethod
    def of(cls, letter: DeadLetter, actions: Sequence[DeadLetterAction]) -> Self:
        """Return what is told about a letter."""
        body, encoding = decode_body(letter.body)
        return cls.model_validate(
            letter.model_dump(exclude={"body"})
            | {
                "body": body,
                "encoding": encoding,
                "excerpt": excerpt(letter.body),
                "actions": [ActionOut.model_validate(action) for action in actions],
            }
        )


class Letters(BaseModel):
    """A page of letters, newest first."""

    dead_letters: list[LetterOut]
    next: int | None = Field(description="What to send as `before` for the next page, if any.")


class WantedLetters(BaseModel):
    """Which letters; what is left out counts as any."""

    model_config = ConfigDict(extra="forbid")

    queue: Part | None = None
    state: DeadLetterState | None = None
    reason_code: Part | None = None
    text: Annotated[
        Part | None, Field(description="A part of the reason, or of the body to the letter.")
    ] = None

    def filter(self) -> DeadLetterFilter:
        """Return what a letter must be like."""
        return DeadLetterFilter(
            queue=self.queue, state=self.state, reason_code=self.reason_code, text=self.text
        )


class LettersQuery(WantedLetters):
    """Which letters to list."""

    limit: Annotated[int, Field(ge=1, le=100)] = 50
    before: Annotated[PathId | None, Field(description="`next` of the page before.")] = None


class Decision(BaseModel):
    """Who decides, and why."""

    model_config = ConfigDict(extra="forbid")

    actor: Actor = "api"
    note: Note | None = None


class Edit(Decision):
    """Another body."""

    body: str
    encoding: Encoding = "utf-8"
    version: Annotated[int, Field(ge=1, description="The version that was looked at.")]


class Discard(Decision):
    """Why a letter is not to be processed."""

    note: Annotated[Note, Field(min_length=1)]


class Redrive(Decision):
    """Which letters are to be processed again, of those that are kept."""

    filter: WantedLetters = WantedLetters()
    dry_run: bool = Field(default=False, description="Only tell which it would be.")
    rate: Annotated[
        float | None, Field(gt=0, le=100_000, description="How many a second; null: all at once.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_REDRIVE)] = 1000


class Redriven(BaseModel):
    """Which letters are processed again, oldest first."""

    count: int
    ids: list[int] = Field(description=f"The first {_MOST_IDS} of them.")
    dry_run: bool


def excerpt(body: bytes) -> str:
    """Return the beginning of a body, for a list."""
    return body[: queries.EXCERPT_BYTES].decode(errors="replace")
