"""A database with a large shop, for the benchmarks of orders and intake."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_platform.postgres.engine import create_engine
from tests.benchmarks import days
from tests.support.postgres import migrated_database


@asynccontextmanager
async def created(server_url: str, *, name: str) -> AsyncIterator[AsyncEngine]:
    """Yield an engine on a new database with a thousand users and products of unlimited stock."""
    async with migrated_database(server_url, name=f"daybook_bench_{name}_{os.getpid()}") as url:
        engine = create_engine(url, application="bench")
        async with engine.begin() as connection:
            for statement in days.CUSTOMERS_AND_PRODUCTS.split(";"):
                await connection.execute(text(statement))
            await connection.execute(text("UPDATE products SET stock_quantity = 1000000000"))
            await connection.execute(text("ANALYZE"))
        yield engine
        await engine.dispose()
