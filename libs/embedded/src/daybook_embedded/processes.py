"""Processes identified by pid and start time, and safe ways to signal them.

A pid alone does not identify a process: after a crash and a reboot, another process may have it.
Signals are sent only when the start time matches too.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
POLL_SECONDS = 0.02
# Fields of /proc/<pid>/stat, counted after the name, which may contain any character: proc(5).
STATE, START_TIME = 0, 19


@dataclass(frozen=True)
class Process:
    """One process; never a later one with the same pid."""

    pid: int
    started: str
    """Start time, as `start_time` returns it."""

    def is_alive(self) -> bool:
        """Return whether the process still runs; a zombie does not."""
        return start_time(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal; do nothing if the process has ended."""
        with suppress(ProcessLookupError), _open_pidfd(self.pid) as descriptor:
            if not self.is_alive():
                return
            if descriptor is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)

    def wait(self, *, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the end of the process; return whether it ended."""
        deadline = time.monotonic() + timeout
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def find(pid: int) -> Process | None:
    """Return the process that has this pid now, or None."""
    started = start_time(pid)
    return Process(pid, started) if started else None


def stop(process: Process, *, signals: Sequence[signal.Signals], timeout: float) -> bool:
    """Send the signals in turn until the process ends, waiting `timeout` seconds after each."""
    for number in signals:
        process.send(number)
        if process.wait(timeout=timeout):
            return True
    return False


def start_time(pid: int) -> str:
    """Return the start time of a process as an opaque string; empty if there is no process."""
    if not PROC.joinpath("self").exists():
        return _query_ps(pid, "lstart=")
    try:
        stat = PROC.joinpath(str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[STATE] in "ZX" else f"{fields[START_TIME]}@{_boot_id()}"


def command_line(pid: int) -> str:
    """Return the command line of a process; empty if it has ended or is not readable."""
    if not PROC.joinpath("self").exists():
        return _query_ps(pid, "command=")
    try:
        raw = PROC.joinpath(str(pid), "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


@contextmanager
def _open_pidfd(pid: int) -> Iterator[int | None]:
    """Open a descriptor of the process, so that the process checked is the process signalled.

    None where the system has no pidfd: the pid could then be reused between check and signal.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _boot_id() -> str:
    # Start times count from the boot, so without its id they could repeat after a reboot.
    with suppress(OSError):
        return PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    return ""


def _query_ps(pid: int, field: str) -> str:
    result = subprocess.run(
        ["ps", "-ww", "-o", f"stat=,{field}", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
    )
    state, _, value = result.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else value.strip()
