"""Free ports of the loopback interface."""

import socket
from itertools import islice

from daybook_embedded import ports


def test_a_port_with_a_listener_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not ports.is_free(server.getsockname()[1])


def test_a_free_preferred_port_is_the_first_candidate_and_others_follow() -> None:
    port = ports.free_port()

    offered = list(islice(ports.candidates(None, port), 3))

    assert offered[0] == port
    assert len(offered) == 3


def test_a_busy_port_is_not_a_candidate() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]

        assert busy not in islice(ports.candidates(busy), 5)
