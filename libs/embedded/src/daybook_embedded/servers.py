"""What do the three servers have in common? Their lifetime.

A start takes the folder's lock, ends what an earlier start left running, and then tries ports until
the server answers on one. No step trusts the one before: another process may take the port between
our look and the server's bind, so a server that could not bind is started again on the next port.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from types import TracebackType
from typing import ClassVar, Self

from daybook_embedded import processes
from daybook_embedded.data_directory import Home, open_home
from daybook_embedded.errors import EmbeddedError, with_log
from daybook_embedded.locks import Lock
from daybook_embedded.ports import candidates
from daybook_embedded.supervisor import Child, Program

ATTEMPTS = 10
POLL_SECONDS = 0.02
STOP_PATIENCE_SECONDS = 10.0
# What the servers say of a port that they could not have; the last is RabbitMQ of its second one.
BUSY = ("address already in use", "eaddrinuse", "in use by")


class Server(ABC):
    """A private server, from `start` to `stop`; also a context manager of that span."""

    name: ClassVar[str]
    stop_signals: ClassVar[Sequence[Signals]] = (SIGTERM, SIGKILL)

    def __init__(
        self, data_dir: Path, *, port: int | None = None, start_timeout: float = 120.0
    ) -> None:
        """Say where the data lives and which port is preferred: else the one of the last start."""
        self.data_dir = data_dir
        self.url = ""
        self.pid = 0
        self._preferred = port
        self._start_timeout = start_timeout
        self._lock: Lock | None = None
        self._children: list[Child] = []

    def start(self) -> str:
        """Start the server, wait until it answers, and return its URL."""
        if self.running:
            return self.url
        self.stop()
        try:
            return self._start(self._take())
        except OSError as error:
            self.stop()
            raise EmbeddedError(_explain(error, self.data_dir)) from error
        except BaseException:
            self.stop()
            raise

    @property
    def running(self) -> bool:
        """Say whether it was started and has not ended since, by `stop` or by itself."""
        return bool(self.url) and all(child.running for child in self._children)

    def stop(self) -> None:
        """End the server, mildly and then by force, and give the folder back."""
        try:
            while self._children:
                self._children[-1].stop(patience=STOP_PATIENCE_SECONDS)
                self._children.pop()
        finally:
            if not self._children and self._lock is not None:
                self._lock.release()
                self._lock, self.url, self.pid = None, "", 0

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it."""
        self.stop()

    @abstractmethod
    def prepare(self, home: Home) -> None:
        """Make the data ready for a server: create it, or take away what an earlier crash left."""

    @abstractmethod
    def programs(self, home: Home, *, port: int) -> Sequence[Program]:
        """Return what to start, in this order; the last one is the server."""

    @abstractmethod
    def answers(self, home: Home, *, port: int, pid: int) -> bool:
        """Say whether our server, and no other, accepts clients at this port."""

    @abstractmethod
    def address(self, home: Home, *, port: int) -> str:
        """Return the URL for clients."""

    def _take(self) -> Home:
        """Return the folder, which is now ours alone."""
        home = open_home(self.data_dir)
        self._lock = home.lock()
        return home

    def mend(self, home: Home) -> None:  # noqa: B027 # most servers need nothing
        """See to it that a server that was killed serves again."""

    def _start(self, home: Home) -> str:
        self._end_survivors(home)
        is_first = not home.data.exists()
        self.prepare(home)
        deadline = time.monotonic() + self._start_timeout
        for port in islice(candidates(self._preferred, home.port()), ATTEMPTS):
            if self._runs_at(home, port, deadline=deadline):
                home.write("port", str(port))
                self.url, self.pid = self.address(home, port=port), self._children[-1].pid
                if not is_first:
                    self.mend(home)
                return self.url
        raise with_log(f"No port could be had for {self.name} in {ATTEMPTS} tries.", log=home.log)

    def _end_survivors(self, home: Home) -> None:
        for name, process in home.processes().items():
            if not processes.end(
                process, signals=self.stop_signals, patience=STOP_PATIENCE_SECONDS
            ):
                raise EmbeddedError(
                    f"Process {process.pid} ({name}) of an earlier start in {home.folder} does not "
                    "end; end it by hand."
                )
            home.forget(name)

    def run(self, program: Program, home: Home, *, timeout: float = 60.0) -> None:
        """Run a program of the server's to its end, as the server's account."""
        child = Child(program, home)
        self._children.append(child)
        if not child.wait(timeout=timeout):
            raise with_log(f"{program.name} did not end within {timeout:.0f} s.", log=home.log)
        self._children.remove(child)
        if child.status != 0:
            raise with_log(f"{program.name} failed with status {child.status}.", log=home.log)

    def _runs_at(self, home: Home, port: int, *, deadline: float) -> bool:
        """Start at this port; False if another try may go better, an error if it cannot."""
        for program in self.programs(home, port=port):
            self._children.append(Child(program, home))
        while all(child.running for child in self._children):
            if self.answers(home, port=port, pid=self._children[-1].pid):
                return True
            if time.monotonic() > deadline:
                raise with_log(
                    f"{self.name} did not answer within {self._start_timeout:.0f} s.", log=home.log
                )
            time.sleep(POLL_SECONDS)
        ended = [child for child in self._children if not child.running]
        *helpers, _ = self._children
        said = "".join(child.said() for child in self._children).lower()
        while self._children:
            self._children.pop().stop(patience=STOP_PATIENCE_SECONDS)
        # A helper has nothing but its port to stumble over, and epmd does not say so.
        if any(word in said for word in BUSY) or any(child in helpers for child in ended):
            return False
        statuses = ", ".join(f"{child.program.name} with {child.status}" for child in ended)
        raise with_log(f"{self.name} ended while starting ({statuses}).", log=home.log)


def _explain(error: OSError, folder: Path) -> str:
    if isinstance(error, PermissionError):
        return (
            f"{error}. It belongs to another user: start as that user, or give everything in "
            f"{folder} to this one with `chown -R`."
        )
    return f"{error}. Mend that, or choose another folder than {folder}."
