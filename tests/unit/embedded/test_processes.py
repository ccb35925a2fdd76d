"""Processes identified by pid and start time."""

import signal
import subprocess
from collections.abc import Iterator

import pytest

from daybook_embedded import processes
from daybook_embedded.processes import Process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Start an idle process, killed after the test."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # Its command line is empty until it has started.
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        process.stdout.readline()
        yield process
        process.kill()


def test_a_running_process_is_found_and_stopped(sleeper: subprocess.Popen[bytes]) -> None:
    process = processes.find(sleeper.pid)

    assert process is not None
    assert process.is_alive()
    assert "cat" in processes.command_line(sleeper.pid)
    assert processes.stop(process, signals=[signal.SIGTERM], timeout=10)
    assert sleeper.wait(10) == -signal.SIGTERM


def test_a_later_process_with_the_same_pid_gets_no_signal(
    sleeper: subprocess.Popen[bytes],
) -> None:
    predecessor = Process(sleeper.pid, "another time")

    predecessor.send(signal.SIGKILL)

    assert not predecessor.is_alive()
    assert processes.stop(predecessor, signals=[signal.SIGKILL], timeout=10)
    assert sleeper.poll() is None


def test_a_zombie_counts_as_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = processes.find(sleeper.pid)
    assert process is not None

    sleeper.kill()

    # Its parent, this test, has not reaped it yet.
    assert process.wait(timeout=10)


def test_a_pid_without_a_process_finds_nothing() -> None:
    assert processes.find(2**31 - 1) is None
    assert processes.command_line(2**31 - 1) == ""


def test_a_process_that_ignores_a_signal_gets_the_next_one() -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo ready; exec sleep 60"]
    with subprocess.Popen(stubborn, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = processes.find(child.pid)
        assert process is not None

        ended = processes.stop(process, signals=[signal.SIGTERM, signal.SIGKILL], timeout=0.1)

        assert ended
