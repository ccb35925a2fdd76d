"""Exclusive locks on folders, released by the kernel when the process ends."""

import fcntl
import os
import time
from pathlib import Path

from daybook_embedded import processes
from daybook_embedded.errors import EmbeddedError

POLL_SECONDS = 0.02
# Maximum wait for the lock of a dead process.
GRACE_SECONDS = 5.0


class Lock:
    """A lock of this process on a folder, by flock(2) on a file in it."""

    def __init__(self, file: Path) -> None:
        """Set the lock file, which `acquire` creates."""
        self._file = file
        self._descriptor: int | None = None

    def acquire(self) -> int:
        """Lock the file and return its descriptor.

        Raises `EmbeddedError`, with the pid of the other process, if it is locked already.
        """
        # Python opens with O_CLOEXEC, so servers that outlive this process do not share the lock.
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        return descriptor

    def release(self) -> None:
        """Release the lock; the file stays, since removing it would be a race."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _lock(self, descriptor: int) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        while not _try_lock(descriptor):
            owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            # If a process is killed between fork and exec, its child has the lock until the exec.
            dead = not owner.isdecimal() or processes.find(int(owner)) is None
            if not dead or time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self._file.parent} is in use by process {owner or 'unknown'}. "
                    "Stop that process first, or choose another folder."
                )
            time.sleep(POLL_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
