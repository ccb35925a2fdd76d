"""Who holds this folder?"""

import fcntl
import os
import time
from pathlib import Path

from daybook_embedded import processes
from daybook_embedded.errors import EmbeddedError

POLL_SECONDS = 0.02
# How long the lock of a dead process is waited for.
GRACE_SECONDS = 5.0


class Lock:
    """The right of one running process to a folder; the kernel takes it back when that one dies."""

    def __init__(self, file: Path) -> None:
        """Name the file that stands for the folder; it is created when the lock is taken."""
        self._file = file
        self._descriptor: int | None = None

    def acquire(self) -> int:
        """Take the lock and return its descriptor, or raise an error that names the holder."""
        # Python opens with O_CLOEXEC: a server that survives us must not go on holding our lock.
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return descriptor

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would be a race."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while not _locked(descriptor):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            # A process that is killed while it forks leaves its lock to the child until that execs.
            dead = not holder.isdecimal() or processes.find(int(holder)) is None
            if not dead or time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self._file.parent} is in use by process {holder or 'unknown'}. "
                    "Stop that process first, or choose another folder."
                )
            time.sleep(POLL_SECONDS)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
