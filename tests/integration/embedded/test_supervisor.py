"""Servers end with the process that started them, and can be started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import find_rabbitmq
from daybook_embedded.valkey import ValkeyServer

END_SECONDS = 15

PARENT = """
import sys
from pathlib import Path
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.rabbitmq import RabbitServer
from daybook_embedded.valkey import ValkeyServer

classes = {"postgres": PostgresServer, "valkey": ValkeyServer, "rabbitmq": RabbitServer}
servers = [classes[name](Path(sys.argv[1]) / name) for name in sys.argv[2:]]
for server in servers:
    server.start()
try:
    print("started", flush=True)
    sys.stdin.read()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.read()
for server in reversed(servers):
    server.stop()
print("stopped", flush=True)
"""


class Parent:
    """A process that starts servers and stops them when its input ends."""

    def __init__(self, folder: Path, *names: str) -> None:
        """Start the process and wait until its servers run."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(folder), *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert self.read_line() == "started"
        self.descendants = psutil.Process(self.process.pid).children(recursive=True)
        self.names = {process.name() for process in self.descendants}

    def read_line(self) -> str:
        """Return its next line of output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __enter__(self) -> "Parent":
        """Return the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process, whatever the result of the test."""
        self.process.kill()
        self.process.communicate()


def wait_for_end(
    processes: list[psutil.Process], *, timeout: float = END_SECONDS
) -> list[psutil.Process]:
    """Wait for processes to end; return those that did not, in the same order."""
    deadline = time.monotonic() + timeout
    while (left := [p for p in processes if is_running(p)]) and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.05)
    return left


def is_running(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has death signals")
def test_servers_end_with_a_killed_parent_and_start_again(folder: Path) -> None:
    with Parent(folder, "postgres", "valkey") as parent:
        parent.process.kill()
        parent.process.wait()

        # Immediately: the old servers may still be shutting down.
        with PostgresServer(folder / "postgres"), ValkeyServer(folder / "valkey"):
            assert wait_for_end(parent.descendants) == []

    assert len(parent.descendants) > 2


@pytest.mark.rabbitmq
@pytest.mark.skipif(find_rabbitmq() is None, reason="rabbitmq-server is not installed")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has death signals")
def test_rabbitmq_and_its_name_service_end_with_a_killed_parent(folder: Path) -> None:
    with Parent(folder, "rabbitmq") as parent:
        parent.process.kill()
        parent.process.wait()

        assert wait_for_end(parent.descendants) == []

    assert {"beam.smp", "epmd"} <= parent.names


def test_ctrl_c_reaches_the_parent_which_then_stops_its_servers(folder: Path) -> None:
    with Parent(folder, "postgres", "valkey") as parent:
        # To the whole foreground process group, as a terminal does.
        os.killpg(parent.process.pid, signal.SIGINT)

        assert parent.read_line() == "interrupted"
        assert wait_for_end(parent.descendants, timeout=0) == parent.descendants

        assert parent.process.communicate(timeout=END_SECONDS)[0] == "stopped\n"
        assert wait_for_end(parent.descendants) == []
