"""The reference for serving: a hello-world endpoint, and a report through ORM and Pydantic."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from sqlmodel import col, select

from daybook_domain.reports.models import Report
from daybook_platform.postgres.engine import create_engine, create_sessions
from daybook_platform.postgres.sessions import Sessions


class Row(BaseModel):
    """A report row, modelled as in FastAPI's tutorial."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    report_at: date
    order_id: int
    count_product: int
    created_at: datetime


def create_app() -> FastAPI:
    """Return an application with both endpoints."""
    engine = create_engine(os.environ["DAYBOOK_DATABASE_URL"], application="naive")
    sessions: Sessions = create_sessions(engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/hello")
    async def hello() -> dict[str, str]:
        return {"message": "Hello World"}

    @app.get("/report", response_model=list[Row])
    async def report(date: date) -> object:
        async with sessions() as session:
            statement = (
                select(Report).where(Report.report_at == date).order_by(col(Report.order_id))
            )
            return (await session.exec(statement)).all()

    return app
