"""Log lines about outages of servers: one when an outage starts, one when it ends."""

import structlog

log = structlog.stdlib.get_logger(__name__)


class OutageLog:
    """The outage of one server, logged once when it starts and once when it ends."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._is_active = False

    @property
    def is_active(self) -> bool:
        """Whether an outage was reported and has not ended."""
        return self._is_active

    def report(self, error: BaseException) -> None:
        """Record that the server was unavailable."""
        if not self._is_active:
            log.warning(
                "server unavailable; retrying",
                server=self._server,
                reason=f"{type(error).__name__}: {error}".splitlines()[0],
            )
        self._is_active = True

    def end(self) -> None:
        """Record that the server was available."""
        if self._is_active:
            log.info("server available again", server=self._server)
        self._is_active = False
