"""How does Postgres run the statements that a piece of code sends?"""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

Work = Callable[[AsyncSession], Awaitable[object]]


@dataclass(frozen=True)
class Plan:
    """One statement, and how it was run."""

    statement: str
    root: dict[str, Any]

    @property
    def indexes(self) -> set[str]:
        """The indexes that were searched."""
        return {node["Index Name"] for node in self._nodes() if "Index Name" in node}

    @property
    def sequential(self) -> set[str]:
        """The tables that were read from end to end."""
        return {n["Relation Name"] for n in self._nodes() if n["Node Type"] == "Seq Scan"}

    @property
    def rows(self) -> int:
        """How many rows came of it, or were changed by it."""
        # A child of another relationship is a subquery.
        changed = [
            child
            for node in self._nodes()
            if node["Node Type"] == "ModifyTable"
            for child in node["Plans"]
            if child["Parent Relationship"] == "Outer"
        ]
        return int((changed[0] if changed else self.root)["Actual Rows"])

    @property
    def pages(self) -> int:
        """How many pages of tables and indexes were looked at, again and again counted again."""
        return int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])

    def _nodes(self) -> Iterator[dict[str, Any]]:
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.get("Plans", [])


@contextmanager
def listening(engine: AsyncEngine) -> Iterator[list[tuple[str, Any]]]:
    """Yield what is sent through `engine` meanwhile: statements and their values."""
    heard = list[tuple[str, Any]]()

    def hear(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        if not statement.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")):
            heard.append((statement, values))

    event.listen(engine.sync_engine, "before_cursor_execute", hear)
    try:
        yield heard
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", hear)


async def explain(session: AsyncSession, sent: tuple[str, Any]) -> Plan:
    """Run a statement that was sent once more, and return how that went."""
    statement, values = sent
    connection = await session.connection()
    told = await connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", values
    )
    answer = told.scalar_one()
    return Plan(statement, (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"])
