"""Upgrades and downgrades of the schema, and their mutual exclusion."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain import advisory_locks
from daybook_platform.postgres import migrate
from daybook_platform.postgres.engine import create_engine
from tests.support.postgres import temporary_database, wait_for_blocked_transaction

ALL_OBJECTS = text(
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    " UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
)


@pytest.fixture
async def empty(postgres_server_url: str) -> AsyncIterator[str]:
    """Return the URL of an empty database."""
    async with temporary_database(
        postgres_server_url, name=f"daybook_test_{os.getpid()}_migrations"
    ) as url:
        yield url


@pytest.fixture
async def empty_engine(empty: str) -> AsyncIterator[AsyncEngine]:
    """Return an engine on that database."""
    engine = create_engine(empty, application="tests")
    yield engine
    await engine.dispose()


async def contents(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list((await connection.scalars(ALL_OBJECTS)).all())


async def test_a_downgrade_and_second_upgrade_give_the_same_schema(
    empty: str, empty_engine: AsyncEngine
) -> None:
    await migrate.upgrade(empty)
    up = await contents(empty_engine)
    await migrate.downgrade(empty, revision="base")
    down = await contents(empty_engine)
    await migrate.upgrade(empty)

    assert "report_runs" in up
    assert "orders_require_no_report" in up
    assert down == ["alembic_version", "alembic_version_pkc"]
    assert await contents(empty_engine) == up
    await migrate.check(empty)


@pytest.mark.parametrize(
    ("step", "before"), [("0002", "0001"), ("0003", "0002"), ("0010", "0010-1")]
)
async def test_each_migration_can_be_downgraded(
    empty: str, empty_engine: AsyncEngine, step: str, before: str
) -> None:
    await migrate.upgrade(empty, revision=before)
    first = await contents(empty_engine)
    await migrate.upgrade(empty, revision=step)
    await migrate.downgrade(empty, revision=before)

    assert await contents(empty_engine) == first


async def test_the_newest_of_several_primary_addresses_stays_primary(
    empty: str, empty_engine: AsyncEngine
) -> None:
    await migrate.upgrade(empty, revision="0002")
    async with empty_engine.begin() as connection:
        for statement in (
            "INSERT INTO users (username, email) SELECT n, n FROM generate_series(1, 2) AS n",
            "INSERT INTO addresses (user_id, street, city, zip_code, country, is_primary)"
            " SELECT 1 + n % 2, 'Quay', 'Bergen', '5003', 'NO', n < 5 FROM generate_series(0, 5) n",
        ):
            await connection.execute(text(statement))
    await migrate.upgrade(empty, revision="0003")

    async with empty_engine.connect() as connection:
        primary = text("SELECT user_id, id FROM addresses WHERE is_primary ORDER BY user_id")
        assert [tuple(row) for row in await connection.execute(primary)] == [(1, 5), (2, 4)]


async def test_a_difference_between_models_and_database_is_reported(
    empty: str, empty_engine: AsyncEngine
) -> None:
    await migrate.upgrade(empty)
    async with empty_engine.begin() as connection:
        await connection.execute(text("ALTER TABLE report_runs DROP COLUMN reason"))

    with pytest.raises(CommandError, match="reason"):
        await migrate.check(empty)


async def test_concurrent_upgrades_wait_for_each_other(
    empty: str, empty_engine: AsyncEngine
) -> None:
    async with empty_engine.begin() as connection:
        await connection.execute(text(f"SELECT pg_advisory_xact_lock({advisory_locks.MIGRATION})"))
        upgrades = [asyncio.create_task(migrate.upgrade(empty)) for _ in range(2)]
        await wait_for_blocked_transaction(empty_engine, more_than=1)

    await asyncio.gather(*upgrades)
    await migrate.check(empty)


async def test_a_second_upgrade_changes_nothing(empty: str, empty_engine: AsyncEngine) -> None:
    await migrate.upgrade(empty)
    before = await contents(empty_engine)

    await migrate.upgrade(empty)

    assert await contents(empty_engine) == before


async def test_orders_are_placed_while_the_constraint_of_their_status_is_validated(
    empty: str, empty_engine: AsyncEngine
) -> None:
    async with empty_engine.connect() as holder:
        await holder.execute(text("SELECT pg_advisory_lock(4711)"))
        await _wait_before_statement(empty_engine, "%VALIDATE CONSTRAINT ck_orders_status%")
        upgrade = asyncio.create_task(migrate.upgrade(empty, revision="0010"))
        await wait_for_blocked_transaction(empty_engine)

        async with empty_engine.begin() as connection:
            await connection.execute(text("SET LOCAL lock_timeout = '1ms'"))
            for statement in (
                "INSERT INTO users (username, email) VALUES ('ada', 'ada@example.com')",
                "INSERT INTO addresses (user_id, street, city, zip_code, country, is_primary)"
                " VALUES (1, 'Quay 1', 'Bergen', '5003', 'NO', true)",
                "INSERT INTO orders (user_id, delivery_address_id, total_price, status)"
                " VALUES (1, 1, 3.50, 'completed')",
            ):
                await connection.execute(text(statement))
        await holder.execute(text("SELECT pg_advisory_unlock(4711)"))
    await upgrade

    async with empty_engine.connect() as connection:
        query = "SELECT convalidated FROM pg_constraint WHERE conname = 'ck_orders_status'"
        assert (await connection.execute(text(query))).scalar_one()


async def _wait_before_statement(engine: AsyncEngine, pattern: str) -> None:
    """Make statements of the data definition language that match `pattern` wait for lock 4711."""
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION wait_first() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
                f" IF current_query() LIKE '{pattern}' THEN"
                " PERFORM pg_advisory_lock(4711); PERFORM pg_advisory_unlock(4711); END IF;"
                " END $$"
            )
        )
        await connection.execute(
            text(
                "CREATE EVENT TRIGGER wait_first ON ddl_command_start EXECUTE FUNCTION wait_first()"
            )
        )
