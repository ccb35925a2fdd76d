"""Free TCP ports of the loopback interface."""

import errno
import random
import socket
from collections.abc import Iterator

# Below the ephemeral ranges of Linux and macOS: an outgoing connection would otherwise often occupy
# the port that was recorded for the next start.
RANGE = range(15000, 32000)
ATTEMPTS = 50


def is_free(port: int) -> bool:
    """Return whether a server could listen on 127.0.0.1 at this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do, so that connections in TIME_WAIT do not count as busy.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def free_port() -> int:
    """Return a port that is free at this moment."""
    for port in random.sample(RANGE, ATTEMPTS):
        if is_free(port):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def candidates(*preferred: int | None) -> Iterator[int]:
    """Yield the preferred ports that are free, then free ports without end."""
    for port in preferred:
        if port is not None and is_free(port):
            yield port
    while True:
        yield free_port()
