"""Reads of single users and products as the JSON that Postgres renders."""

from datetime import timedelta

from daybook_api.read_connections import ReadConnections, outages_as_unavailable


class EntityReader:
    """A reader of single entities by their key."""

    def __init__(self, connections: ReadConnections, *, timeout: timedelta) -> None:
        """Use `connections`; `timeout` limits each query."""
        self._connections = connections
        self._timeout_seconds = timeout.total_seconds()

    async def find(self, query: str, entity_id: int) -> bytes | None:
        """Return the JSON that `query` renders, or None without a row. Raises `Unavailable`."""
        with outages_as_unavailable():
            async with self._connections.acquire() as connection:
                body: str | None = await connection.fetchval(
                    query, entity_id, timeout=self._timeout_seconds
                )
        return None if body is None else body.encode()
