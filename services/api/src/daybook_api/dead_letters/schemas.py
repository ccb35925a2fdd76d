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
from daybook_domain.intake.parsing import decode_body, to_storable
from daybook_domain.intake.queries import DeadLetterFilter
from daybook_domain.validation import Storable

MAX_REDRIVE = 100_000

MAX_LISTED_IDS = 100

Actor = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    Storable,
    Field(description="Name of the person or system that decides, for the audit trail."),
]

Note = Annotated[str, StringConstraints(max_length=500, strip_whitespace=True), Storable]

Encoding = Annotated[
    Literal["utf-8", "base64"],
    Field(description="Encoding of `body`: `utf-8` for text, `base64` for other bytes."),
]

Text = Annotated[str, StringConstraints(min_length=1, max_length=200), Storable]


class DeadLetterOut(BaseModel):
    """A message that could not be processed."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    queue: str = Field(description="Queue that the message was sent to.")
    message_id: str | None
    reason_code: str
    reason: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    state: DeadLetterState
    available_at: datetime | None = Field(
        description="Earliest time of the next attempt, while waiting."
    )
    version: int = Field(description="Version, which each edit increases and must name.")
    actor: str | None = Field(description="Actor of the latest decision.")
    note: str | None
    excerpt: str = Field(description="First bytes of the body, as text.")


class DeadLetterActionOut(BaseModel):
    """An action on a dead letter."""

    model_config = ConfigDict(from_attributes=True)

    action: DeadLetterActionType
    actor: str
    note: str | None
    digest_before: str | None = Field(description="SHA-256 of the body before the action.")
    digest_after: str | None
    created_at: datetime


class DeadLetterDetail(DeadLetterOut):
    """A dead letter with its body, headers and actions."""

    body: str
    encoding: Encoding
    headers: dict[str, Any]
    actions: list[DeadLetterActionOut]

    @classmethod
    def of(cls, dead_letter: DeadLetter, actions: Sequence[DeadLetterAction]) -> Self:
        """Return the response body for a dead letter."""
        body, encoding = decode_body(dead_letter.body)
        return cls.model_validate(
            dead_letter.model_dump(exclude={"body", "headers"})
            | {
                "body": body,
                "encoding": encoding,
                # Earlier releases stored headers of any depth.
                "headers": to_storable(dead_letter.headers),
                "excerpt": excerpt(dead_letter.body),
                "actions": [DeadLetterActionOut.model_validate(action) for action in actions],
            }
        )


class DeadLetters(BaseModel):
    """A page of dead letters, newest first."""

    dead_letters: list[DeadLetterOut]
    next: int | None = Field(
        description="Value of `before` for the next page; null on the last page."
    )


class DeadLetterFilterIn(BaseModel):
    """Filters of dead letters; an omitted filter matches all."""

    model_config = ConfigDict(extra="forbid")

    queue: Text | None = None
    state: DeadLetterState | None = None
    reason_code: Text | None = None
    text: Annotated[
        Text | None, Field(description="Text within the reason, ignoring case, or within the body.")
    ] = None

    def to_domain(self) -> DeadLetterFilter:
        """Return the filter of the domain."""
        return DeadLetterFilter(
            queue=self.queue, state=self.state, reason_code=self.reason_code, text=self.text
        )


class DeadLettersQuery(DeadLetterFilterIn):
    """Filters and position of the list of dead letters."""

    limit: Annotated[int, Field(ge=1, le=100)] = 50
    before: Annotated[PathId | None, Field(description="`next` of the previous page.")] = None


class DeadLetterDecision(BaseModel):
    """The actor of a decision, and the reason."""

    model_config = ConfigDict(extra="forbid")

    actor: Actor = "api"
    note: Note | None = None


class DeadLetterEdit(DeadLetterDecision):
    """A new body for a dead letter."""

    body: str
    encoding: Encoding = "utf-8"
    version: Annotated[int, Field(ge=1, description="Version that the edit is based on.")]


class DeadLetterDiscard(DeadLetterDecision):
    """The reason for discarding a dead letter."""

    note: Annotated[Note, Field(min_length=1)]


class DeadLetterRedrive(DeadLetterDecision):
    """A selection of kept dead letters to redrive."""

    filter: DeadLetterFilterIn = DeadLetterFilterIn()
    dry_run: bool = Field(default=False, description="Return the selection and change nothing.")
    rate: Annotated[
        float | None,
        Field(
            # The due times of the maximum number of messages are within years then.
            ge=0.001,
            le=100_000,
            description="Maximum number of messages per second. Default: no limit.",
        ),
    ] = None
    limit: Annotated[int, Field(ge=1, le=MAX_REDRIVE)] = 1000


class DeadLetterRedriveResult(BaseModel):
    """The dead letters that were redriven, oldest first."""

    count: int
    ids: list[int] = Field(description=f"Ids of the first {MAX_LISTED_IDS} of them.")
    dry_run: bool


def excerpt(body: bytes) -> str:
    """Return the first bytes of a body as text, for a list."""
    return body[: queries.EXCERPT_BYTES].decode(errors="replace")
