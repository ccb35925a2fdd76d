"""/dead-letters: messages that could not be processed, and decisions about them."""

import base64
import binascii
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from daybook_api.dead_letters.schemas import (
    MAX_LISTED_IDS,
    DeadLetterDecision,
    DeadLetterDetail,
    DeadLetterDiscard,
    DeadLetterEdit,
    DeadLetterOut,
    DeadLetterRedrive,
    DeadLetterRedriveResult,
    DeadLetters,
    DeadLettersQuery,
    excerpt,
)
from daybook_api.dependencies import App
from daybook_api.pagination import PathId, add_next_link, split_page
from daybook_domain.errors import Invalid
from daybook_domain.intake import dead_letter_admin, queries

router = APIRouter(prefix="/dead-letters", tags=["dead letters"])


@router.get("")
async def list_dead_letters(
    request: Request, response: Response, query: Annotated[DeadLettersQuery, Query()], app: App
) -> DeadLetters:
    """List dead letters, newest first."""
    async with app.sessions() as session:
        found = await queries.list_dead_letters(
            session, query.to_domain(), before=query.before, limit=query.limit + 1
        )
    rows, last = split_page(found, limit=query.limit)
    page = [
        DeadLetterOut.model_validate(
            dead_letter.model_dump(exclude={"body", "headers"}) | {"excerpt": excerpt(beginning)}
        )
        for dead_letter, beginning in rows
    ]
    next_id = None if last is None else page[-1].id
    add_next_link(request, response, before=next_id)
    return DeadLetters(dead_letters=page, next=next_id)


@router.post("/redrive", status_code=HTTPStatus.ACCEPTED)
async def redrive_dead_letters(body: DeadLetterRedrive, app: App) -> DeadLetterRedriveResult:
    """Process the selected kept dead letters again, oldest first, each exactly once."""
    async with app.sessions.begin() as session:
        if body.dry_run:
            ids = await dead_letter_admin.preview_redrive(
                session, body.filter.to_domain(), limit=body.limit
            )
        else:
            ids = await dead_letter_admin.redrive_all(
                session,
                body.filter.to_domain(),
                rate=body.rate,
                limit=body.limit,
                actor=body.actor,
                note=body.note,
            )
    return DeadLetterRedriveResult(
        count=len(ids), ids=list(ids[:MAX_LISTED_IDS]), dry_run=body.dry_run
    )


@router.get("/{letter_id}")
async def get_dead_letter(letter_id: PathId, app: App) -> DeadLetterDetail:
    """Get a dead letter, with its body and the actions on it."""
    async with app.sessions() as session:
        dead_letter = await queries.get_dead_letter(session, letter_id)
        return DeadLetterDetail.of(dead_letter, await queries.list_actions(session, letter_id))


@router.put("/{letter_id}")
async def edit_dead_letter(letter_id: PathId, body: DeadLetterEdit, app: App) -> DeadLetterDetail:
    """Replace the body of a dead letter, before it is processed again."""
    async with app.sessions.begin() as session:
        dead_letter = await dead_letter_admin.edit(
            session,
            letter_id,
            body=_decode_body(body),
            version=body.version,
            actor=body.actor,
            note=body.note,
        )
        return DeadLetterDetail.of(dead_letter, await queries.list_actions(session, letter_id))


@router.post("/{letter_id}/redrive", status_code=HTTPStatus.ACCEPTED)
async def redrive_dead_letter(
    letter_id: PathId, app: App, body: DeadLetterDecision | None = None
) -> DeadLetterDetail:
    """Process a dead letter again, immediately and exactly once."""
    decision = body or DeadLetterDecision()
    async with app.sessions.begin() as session:
        dead_letter = await dead_letter_admin.redrive(
            session, letter_id, actor=decision.actor, note=decision.note
        )
        return DeadLetterDetail.of(dead_letter, await queries.list_actions(session, letter_id))


@router.post("/{letter_id}/discard")
async def discard_dead_letter(
    letter_id: PathId, body: DeadLetterDiscard, app: App
) -> DeadLetterDetail:
    """Discard a dead letter: it is not processed again, and remains visible with the note."""
    async with app.sessions.begin() as session:
        dead_letter = await dead_letter_admin.discard(
            session, letter_id, actor=body.actor, note=body.note
        )
        return DeadLetterDetail.of(dead_letter, await queries.list_actions(session, letter_id))


def _decode_body(edit: DeadLetterEdit) -> bytes:
    try:
        if edit.encoding == "base64":
            return base64.b64decode(edit.body, validate=True)
        return edit.body.encode()
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"is not valid {edit.encoding}: {error}", field="body") from None
