"""Socket options that end a connection to a Postgres that has become silent.

A failover by DNS or a dropped NAT entry leaves connections on which nothing arrives any more, and
no error either. The defaults of the kernel notice after two hours, or after 15 minutes of
retransmissions. See docs/adr/0019-silent-servers.md.
"""

import socket
from typing import Any

import asyncpg

_IDLE_SECONDS = 15
_PROBE_INTERVAL_SECONDS = 5
_PROBES = 3
_UNACKNOWLEDGED_SECONDS = 30

_OPTIONS = {
    "TCP_KEEPIDLE": _IDLE_SECONDS,
    "TCP_KEEPINTVL": _PROBE_INTERVAL_SECONDS,
    "TCP_KEEPCNT": _PROBES,
    "TCP_USER_TIMEOUT": _UNACKNOWLEDGED_SECONDS * 1000,
}
"""Names of options, some of which only Linux has, and their values."""

SERVER_OPTIONS = (
    f"SET tcp_keepalives_idle = {_IDLE_SECONDS};"
    f" SET tcp_keepalives_interval = {_PROBE_INTERVAL_SECONDS};"
    f" SET tcp_keepalives_count = {_PROBES};"
    f" SET tcp_user_timeout = {_UNACKNOWLEDGED_SECONDS * 1000}"
)
"""The same for the server's end, which retains the locks of a client that has become silent."""


def set_options(connection: asyncpg.Connection) -> None:
    """Set the options on the socket of `connection`; a Unix socket needs none."""
    found = get_socket(connection)
    if found is None or found.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if (option := getattr(socket, name, None)) is not None:
            found.setsockopt(socket.IPPROTO_TCP, option, value)


def get_socket(connection: asyncpg.Connection) -> Any:
    """Return the socket of `connection`, or the event loop's substitute for it."""
    # asyncpg has no public access to its transport.
    return connection._transport.get_extra_info("socket")
