"""Private Valkey: durability, isolation, and starts after a kill."""

import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from redis import AuthenticationError, Redis

from daybook_embedded.data_directory import DataDirectory, open_data_directory
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.supervisor import Program
from daybook_embedded.valkey import ValkeyServer


def test_data_and_url_survive_a_stop(folder: Path) -> None:
    server = ValkeyServer(folder / "valkey")
    with server, Redis.from_url(server.url) as client:
        first = server.url
        client.set("key", "42")

    with server, Redis.from_url(server.url) as client:
        assert server.url == first
        assert client.get("key") == b"42"


def test_without_durability_a_restart_is_empty(folder: Path) -> None:
    server = ValkeyServer(folder / "valkey", durable=False)
    with server, Redis.from_url(server.url) as client:
        client.set("key", "42")

    with server, Redis.from_url(server.url) as client:
        assert client.get("key") is None


def test_a_killed_server_can_be_started_again(folder: Path) -> None:
    server = ValkeyServer(folder / "valkey")
    server.start()
    os.kill(server.pid, signal.SIGKILL)
    server.stop()

    with server, Redis.from_url(server.url) as client:
        assert client.ping()


def test_a_wrong_password_is_refused(folder: Path) -> None:
    with ValkeyServer(folder / "valkey", durable=False) as server:
        url = server.url.replace(open_data_directory(server.data_dir).ensure_password(), "guess")
        with Redis.from_url(url) as client, pytest.raises(AuthenticationError):
            client.ping()


def test_the_server_listens_on_loopback_only_and_leaves_no_process(folder: Path) -> None:
    with ValkeyServer(folder / "valkey", durable=False) as server:
        process = psutil.Process(server.pid)
        listening = {c.laddr.ip for c in process.net_connections("inet")}

    assert listening == {"127.0.0.1"}
    assert not process.is_running()


def test_a_busy_port_is_not_used(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        busy = listener.getsockname()[1]
        with ValkeyServer(folder / "valkey", port=busy, durable=False) as server:
            assert f":{busy}/" not in server.url


class PortRaceValkey(ValkeyServer):
    """A server whose first port is taken between the check that it is free and the bind."""

    rival: socket.socket | None = None

    def programs(self, directory: DataDirectory, *, port: int) -> Sequence[Program]:
        """Listen on the first port."""
        self.rival = self.rival or socket.create_server(("127.0.0.1", port))
        return super().programs(directory, port=port)


def test_a_port_that_is_taken_before_the_bind_is_replaced_by_another(folder: Path) -> None:
    with PortRaceValkey(folder / "valkey", durable=False) as racing:
        assert racing.rival is not None
        with racing.rival, Redis.from_url(racing.url) as client:
            assert f":{racing.rival.getsockname()[1]}/" not in racing.url
            assert client.ping()


def test_a_second_start_in_the_same_folder_fails_with_the_pid_of_the_first(folder: Path) -> None:
    with (
        ValkeyServer(folder / "valkey", durable=False),
        pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"),
    ):
        ValkeyServer(folder / "valkey").start()
