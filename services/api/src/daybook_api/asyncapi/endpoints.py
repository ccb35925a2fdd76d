"""/asyncapi: what producers send by RabbitMQ."""

from typing import Any

from fastapi import APIRouter

from daybook_domain.intake import asyncapi

router = APIRouter(tags=["intake"])


@router.get("/asyncapi")
async def document() -> dict[str, Any]:
    """Give the AsyncAPI document of the queues, made of the very models that check messages."""
    return asyncapi.document()
