"""/dead-letters: messages that could not be processed, and what people do about them."""

import base64
import binascii
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from daybook_api.dead_letters.schemas import (
    _MOST_IDS,
    Decision,
    Discard,
    Edit,
    LetterDetail,
    LetterOut,
    Letters,
    LettersQuery,
    Redrive,
    Redriven,
    excerpt,
)
from daybook_api.dependencies import App
from daybook_api.pagination import PathId, link_next
from daybook_domain.errors import Invalid
from daybook_domain.intake import dead_letter_admin, queries

router = APIRouter(prefix="/dead-letters", tags=["dead letters"])


@router.get("")
async def list_letters(
    request: Request, response: Response, query: Annotated[LettersQuery, Query()], app: App
) -> Letters:
    """List dead letters, newest first."""
    async with app.sessions() as session:
        # One more than asked for tells whether there is a next page.
        found = await queries.list_dead_letters(
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
            ids = await dead_letter_admin.preview_redrive(
                session, body.filter.filter(), limit=body.limit
            )
        else:
            ids = await dead_letter_admin.redrive_all(
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
        letter = await queries.get_dead_letter(session, letter_id)
        return LetterDetail.of(letter, await queries.list_actions(session, letter_id))


@router.put("/{letter_id}")
async def edit_letter(letter_id: PathId, body: Edit, app: App) -> LetterDetail:
    """Replace the body of a letter, before it is processed again."""
    async with app.sessions.begin() as session:
        letter = await dead_letter_admin.edit(
            session,
            letter_id,
            body=_bytes(body),
            version=body.version,
            actor=body.actor,
            note=body.note,
        )
        return LetterDetail.of(letter, await queries.list_actions(session, letter_id))


@router.post("/{letter_id}/redrive", status_code=HTTPStatus.ACCEPTED)
async def redrive_letter(letter_id: PathId, app: App, body: Decision | None = None) -> LetterDetail:
    """Have a letter processed again, at once and exactly once."""
    decision = body or Decision()
    async with app.sessions.begin() as session:
        letter = await dead_letter_admin.redrive(
            session, letter_id, actor=decision.actor, note=decision.note
        )
        return LetterDetail.of(letter, await queries.list_actions(session, letter_id))


@router.post("/{letter_id}/discard")
async def discard_letter(letter_id: PathId, body: Discard, app: App) -> LetterDetail:
    """Decide that a letter is not to be processed; it stays, with the note."""
    async with app.sessions.begin() as session:
        letter = await dead_letter_admin.discard(
            session, letter_id, actor=body.actor, note=body.note
        )
        return LetterDetail.of(letter, await queries.list_actions(session, letter_id))


def _bytes(edit: Edit) -> bytes:
    try:
        if edit.encoding == "base64":
            return base64.b64decode(edit.body, validate=True)
        return edit.body.encode()
    except (binascii.Error, ValueError) as error:
        raise Invalid(f"is not {edit.encoding}: {error}", field="body") from None
