"""Recorded SQL statements and their execution plans."""

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel.ext.asyncio.session import AsyncSession

DatabaseWork = Callable[[AsyncSession], Awaitable[object]]


@dataclass(frozen=True)
class QueryPlan:
    """A statement and the plan that it was executed with."""

    statement: str
    root: dict[str, Any]

    @property
    def indexes(self) -> set[str]:
        """The scanned indexes."""
        return {node["Index Name"] for node in self._nodes() if "Index Name" in node}

    @property
    def sequential_scans(self) -> set[str]:
        """The tables that were scanned sequentially."""
        return {n["Relation Name"] for n in self._nodes() if n["Node Type"] == "Seq Scan"}

    @property
    def rows(self) -> int:
        """The number of rows that the statement returned or changed."""
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
        """The number of page reads of tables and indexes; repeated reads count again."""
        return int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])

    def _nodes(self) -> Iterator[dict[str, Any]]:
        unvisited = [self.root]
        while unvisited:
            node = unvisited.pop()
            yield node
            unvisited += node.get("Plans", [])


@contextmanager
def recorded_statements(engine: AsyncEngine) -> Iterator[list[tuple[str, Any]]]:
    """Yield a list that receives each statement sent through `engine`, with its parameters."""
    statements = list[tuple[str, Any]]()

    def record(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if not statement.startswith(("SAVEPOINT", "RELEASE", "ROLLBACK")):
            statements.append((statement, parameters))

    event.listen(engine.sync_engine, "before_cursor_execute", record)
    try:
        yield statements
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", record)


async def explain(session: AsyncSession, recorded: tuple[str, Any]) -> QueryPlan:
    """Execute a recorded statement again with EXPLAIN ANALYZE, and return its plan."""
    statement, parameters = recorded
    connection = await session.connection()
    result = await connection.exec_driver_sql(
        f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", parameters
    )
    output = result.scalar_one()
    plans = json.loads(output) if isinstance(output, str) else output
    return QueryPlan(statement, plans[0]["Plan"])
