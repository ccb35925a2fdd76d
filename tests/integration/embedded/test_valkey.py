"""Does a private Valkey keep its data and its distance?"""

import os
import signal
import socket
from pathlib import Path

import psutil
import pytest
from redis import Redis

from daybook_embedded.errors import EmbeddedError
from daybook_embedded.probes import valkey_answers
from daybook_embedded.valkey import ValkeyServer


def test_what_was_written_survives_a_stop_at_the_same_url(folder: Path) -> None:
    server = ValkeyServer(folder / "valkey")
    with server, Redis.from_url(server.url) as client:
        first = server.url
        client.set("kept", "42")

    with server, Redis.from_url(server.url) as client:
        assert server.url == first
        assert client.get("kept") == b"42"


def test_without_durability_it_is_empty_again(folder: Path) -> None:
    server = ValkeyServer(folder / "valkey", durable=False)
    with server, Redis.from_url(server.url) as client:
        client.set("lost", "42")

    with server, Redis.from_url(server.url) as client:
        assert client.get("lost") is None


def test_it_starts_again_after_it_was_killed(folder: Path) -> None:
    server = ValkeyServer(folder / "valkey")
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    server.stop()

    with server, Redis.from_url(server.url) as client:
        assert client.ping()


def test_a_wrong_password_is_refused(folder: Path) -> None:
    with ValkeyServer(folder / "valkey", durable=False) as server:
        port = int(server.url.rpartition(":")[2].partition("/")[0])
        assert not valkey_answers(port, password="guess")


def test_it_listens_on_loopback_only_and_leaves_no_process(folder: Path) -> None:
    with ValkeyServer(folder / "valkey", durable=False) as server:
        process = psutil.Process(server.pid)
        listening = {c.laddr.ip for c in process.net_connections("inet")}

    assert listening == {"127.0.0.1"}
    assert not process.is_running()


def test_a_busy_port_is_left_to_its_owner(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        busy = owner.getsockname()[1]
        with ValkeyServer(folder / "valkey", port=busy, durable=False) as server:
            assert f":{busy}/" not in server.url


def test_the_second_of_two_starters_is_told_who_was_first(folder: Path) -> None:
    with (
        ValkeyServer(folder / "valkey", durable=False),
        pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"),
    ):
        ValkeyServer(folder / "valkey").start()
