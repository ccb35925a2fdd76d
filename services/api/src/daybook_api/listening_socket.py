"""The TCP socket that the server listens on."""

import socket
import sys
from datetime import timedelta


def bind(host: str, port: int, *, stall_timeout: timedelta) -> socket.socket:
    """Return a listening socket; exit with code 2 and a message when the address cannot be used.

    Accepted connections end when the client acknowledges no data for `stall_timeout`.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        # Accepted connections inherit the option: the kernel then drops a stalled connection with
        # its unsent data. An ASGI application cannot do that, because it has no access to sockets.
        milliseconds = int(stall_timeout.total_seconds() * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        # Clients that connect during the start wait for its end instead of being refused.
        listener.listen()
    except OSError as error:
        sys.stderr.write(f"{_explain(host, port, error)}\n")
        raise SystemExit(2) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the base URL of the server behind `listener`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _explain(host: str, port: int, error: OSError) -> str:
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror):
        return f"DAYBOOK_API_HOST: {host} is not an address ({reason}); try 127.0.0.1"
    return f"DAYBOOK_API_PORT: cannot listen on {host}:{port} ({reason}); choose a free port"
