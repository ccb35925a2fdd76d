"""GET /asyncapi: the contract of the RabbitMQ queues."""

from typing import Any

from fastapi import APIRouter

from daybook_domain.intake import asyncapi

router = APIRouter(tags=["intake"])


@router.get("/asyncapi")
async def get_asyncapi_document() -> dict[str, Any]:
    """Get the AsyncAPI document of the intake queues.

    It is generated from the models that validate the messages.
    """
    return asyncapi.document()
