"""What is at the root?"""

from fastapi import APIRouter

router = APIRouter(tags=["operation"])


@router.get("/", include_in_schema=False)
async def index() -> dict[str, str]:
    """Point at what there is."""
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
    }
