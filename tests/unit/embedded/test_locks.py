"""Exclusive locks on folders."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from daybook_embedded.errors import EmbeddedError
from daybook_embedded.locks import Lock


def test_a_lock_names_its_owner_and_can_be_acquired_after_its_release(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    first.acquire()

    with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"):
        second.acquire()

    first.release()
    second.acquire()
    second.release()


def test_a_lock_that_a_dead_process_left_to_its_child_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The child inherits the lock and ends soon; no process has the pid in the file.
        lock.write(str(2**31 - 1))
        lock.flush()
        child = subprocess.Popen(["sleep", "0.2"], pass_fds=[lock.fileno()])

    waiting = Lock(file)
    waiting.acquire()
    waiting.release()

    assert child.wait(10) == 0
