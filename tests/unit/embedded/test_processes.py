"""Is a process told apart from the next one with its pid?"""

import signal
import subprocess
from collections.abc import Iterator

import pytest

from daybook_embedded import processes
from daybook_embedded.processes import Process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that does nothing."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_running_process_is_found_and_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = processes.find(sleeper.pid)

    assert process is not None
    assert process.alive()
    assert "sleep 60" in processes.command(sleeper.pid)
    assert processes.end(process, signals=[signal.SIGTERM], patience=10)
    assert sleeper.wait(10) == -signal.SIGTERM


def test_the_next_process_with_the_same_pid_gets_no_signal(
    sleeper: subprocess.Popen[bytes],
) -> None:
    predecessor = Process(sleeper.pid, "another time")

    predecessor.send(signal.SIGKILL)

    assert not predecessor.alive()
    assert processes.end(predecessor, signals=[signal.SIGKILL], patience=10)
    assert sleeper.poll() is None


def test_a_zombie_counts_as_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = processes.find(sleeper.pid)
    assert process is not None

    sleeper.kill()

    # Its parent, this test, has not taken note of it yet.
    assert process.wait(timeout=10)


def test_a_pid_that_nobody_has_finds_nothing() -> None:
    assert processes.find(2**31 - 1) is None
    assert processes.command(2**31 - 1) == ""


def test_a_process_that_ignores_a_signal_gets_the_next_one() -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo ready; exec sleep 60"]
    with subprocess.Popen(stubborn, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        process = processes.find(child.pid)
        assert process is not None

        ended = processes.end(process, signals=[signal.SIGTERM, signal.SIGKILL], patience=0.1)

        assert ended
