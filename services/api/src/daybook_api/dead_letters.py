"""/dead-letters: messages that could not be processed, and what people do about them."""

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from daybook_api.deps import App
from daybook_api.lists import PathId, link_next
from daybook_domain.errors import Invalid
from daybook_domain.fields import Storable
from daybook_domain.intake import mending, queries
from daybook_domain.intake.deliveries import shown
from daybook_domain.intake.models import DeadLetter, DeadLetterAction, LetterAction, LetterState
from daybook_domain.intake.queries import LetterFilter

router = APIRouter(prefix="/dead-letters", tags=["dead letters"])

MOST_AT_ONCE = 100_000
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
    state: LetterState
    available_at: datetime | None = Field(description="While it waits: not tried before.")
    version: int = Field(description="Grows with each edit; a further edit has to name it.")
    actor: str | None = Field(description="Who decided last.")
    note: str | None
    excerpt: str = Field(description="The beginning of the body.")


class ActionOut(BaseModel):
    """What was done with a letter."""

    model_config = ConfigDict(from_attributes=True)

    action: LetterAction
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
        body, encoding = shown(letter.body)
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
    state: LetterState | None = None
    reason_code: Part | None = None
    text: Annotated[
        Part | None, Field(description="A part of the reason, or of the body to the letter.")
    ] = None

    def filter(self) -> LetterFilter:
        """Return what a letter must be like."""
        return LetterFilter(
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
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = 1000


class Redriven(BaseModel):
    """Which letters are processed again, oldest first."""

    count: int
    ids: list[int] = Field(description=f"The first {_MOST_IDS} of them.")
    dry_run: bool


def excerpt(body: bytes) -> str:
    """Return the beginning of a body, for a list."""
    return body[: queries.EXCERPT_BYTES].decode(errors="replace")


@router.get("")
async def list_letters(
    request: Request, response: Response, query: Annotated[LettersQuery, Query()], app: App
) -> Letters:
    """List dead letters, newest first."""
    async with app.sessions() as session:
        # One more than asked for tells whether there is a next page.
        found = await queries.letters(
            session, query.filter(), before=query.before, limit=query.limit + 1
        )
    page = [
        LetterOut.model_validate(
            letter.model_dump(exclude={"body"}) | {"excerpt": excerpt(beginning)}
        )
        for letter, beginning in found[: query.limit]
    ]
    following = page[-1].id if len(found) > query.limit else None
    if following is not None:
        link_next(request, response, following)
    return Letters(dead_letters=page, next=following)


@router.post("/redrive", status_code=HTTPStatus.ACCEPTED)
async def redrive_letters(body: Redrive, app: App) -> Redriven:
    """Have the kept letters that fit processed again, oldest first; each exactly once."""
    async with app.sessions.begin() as session:
        if body.dry_run:
            ids = await mending.would_redrive(session, body.filter.filter(), limit=body.limit)
        else:
            ids = await mending.redrive_all(
                session,
                body.filter.filter(),
                rate=body.rate,
                limit=body.limit,
                actor=body.actor,
                note=body.note,
            )
    return Redriven(count=len(ids), ids=list(ids[:_MOST_IDS]), dry_run=body.dry_run)


@router.get("/{letter_id}")
async def get_letter(letter_id: PathId, app: App) -> LetterDetail:
    """Show a dead letter, with its body and what was done with it."""
    async with app.sessions() as session:
        letter = await queries.get(session, letter_id)
        return LetterDetail.of(letter, await queries.actions(session, letter_id))


@router.put("/{letter_id}")
async def edit_letter(letter_id: PathId, body: Edit, app: App) -> LetterDetail:
    """Replace the body of a letter, before it is processed again."""
    async with app.sessions.begin() as session:
        letter = await mending.edit(
            session,
            letter_id,
            body=_bytes(body),
            version=body.version,
            actor=body.actor,
            note=body.note,
        )
        return LetterDetail.of(letter, await queries.actions(session, letter_id))


@router.post("/{letter_id}/redrive", status_code=HTTPStatus.ACCEPTED)
async def redrive_letter(letter_id: PathId, app: App, body: Decision | None = None) -> LetterDetail:
    """Have a letter processed again, at once and exactly once."""
    decision = body or Decision()
    async with app.sessions.begin() as session:
        letter = await mending.redrive(session, letter_id, actor=decision.actor, note=decision.note)
        return LetterDetail.of(letter, await queries.actions(session, letter_id))


@router.post("/{letter_id}/discard")
async def discard_letter(letter_id: PathId, body: Discard, app: App) -> LetterDetail:
    """Decide that a letter is not to be processed; it stays, with the note."""
    async with app.sessions.begin() as session:
        letter = await mending.discard(session, letter_id, actor=body.actor, note=body.note)
        return LetterDetail.of(letter, await queries.actions(session, letter_id))


def _bytes(edit: Edit) -> bytes:
    try:
        if edit.encoding == "base64":
            return base64.b64decode(edit.body, validate=True)
        return edit.body.encode()
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"is not {edit.encoding}: {error}", field="body") from None
