"""Is this process still the one that we started, and how is it ended safely?

A pid alone proves nothing: after a crash and a reboot it may belong to anybody. A process is known
by its pid together with the moment it was started, and only such a pair is ever sent a signal.
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
# Where the fields of /proc/<pid>/stat begin again after the name, which may hold anything: proc(5).
STATE, START_TIME = 0, 19


@dataclass(frozen=True)
class Process:
    """One process, for as long as it lives; never the next one with the same pid."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Say whether it still runs; a zombie does not."""
        return started(self.pid) == self.started

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process, or to none if it has ended."""
        with suppress(ProcessLookupError), _pinned(self.pid) as descriptor:
            if not self.alive():
                return
            if descriptor is None:
                os.kill(self.pid, number)
            else:
                signal.pidfd_send_signal(descriptor, number)

    def wait(self, *, timeout: float) -> bool:
        """Wait at most `timeout` seconds for its end and say whether it came."""
        deadline = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def find(pid: int) -> Process | None:
    """Return the process that has this pid now."""
    moment = started(pid)
    return Process(pid, moment) if moment else None


def end(process: Process, *, signals: Sequence[signal.Signals], patience: float) -> bool:
    """Send each signal in turn, `patience` seconds apart, until the process has ended."""
    for number in signals:
        process.send(number)
        if process.wait(timeout=patience):
            return True
    return False


def started(pid: int) -> str:
    """Return when the process was started, comparable only with itself; empty if it is gone."""
    if not PROC.joinpath("self").exists():
        return _ask_ps(pid, "lstart=")
    try:
        stat = PROC.joinpath(str(pid), "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[STATE] in "ZX" else f"{fields[START_TIME]}@{_boot()}"


def command(pid: int) -> str:
    """Return the command line of the process; empty if it is gone or not ours to look at."""
    if not PROC.joinpath("self").exists():
        return _ask_ps(pid, "command=")
    try:
        raw = PROC.joinpath(str(pid), "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


@contextmanager
def _pinned(pid: int) -> Iterator[int | None]:
    """Give a descriptor of the process, so that what is checked is also what is signalled.

    None where the system has no such thing: there, a moment is left for the pid to be reused.
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


def _boot() -> str:
    # Start times count from the boot, so without its name they could repeat after a reboot.
    with suppress(OSError):
        return PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    return ""


def _ask_ps(pid: int, field: str) -> str:
    answer = subprocess.run(
        ["ps", "-ww", "-o", f"stat=,{field}", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
    )
    state, _, value = answer.stdout.strip().partition(" ")
    return "" if state.startswith("Z") else value.strip()
