"""GET /: the index of the API."""

from fastapi import APIRouter

router = APIRouter(tags=["operation"])


@router.get("/", include_in_schema=False)
async def get_index() -> dict[str, str]:
    """Get the paths of the API."""
    return {
        "service": "Daybook",
        "docs": "/docs",
        "report": "/report",
        "days": "/report/days",
        "runs": "/report/runs",
        "users": "/users",
        "products": "/products",
        "orders": "/orders",
        "dead_letters": "/dead-letters",
        "asyncapi": "/asyncapi",
        "schedules": "/schedules",
        "backfills": "/report/backfills",
        "events": "/events",
        "problems": "/problems",
    }
