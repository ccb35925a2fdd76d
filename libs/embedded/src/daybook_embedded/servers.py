"""Life cycle that the three private servers share.

A start locks the folder, stops what an earlier start left running, and then tries ports until the
server is ready on one. Another process may take a port between the check that it is free and the
server's bind, so a server that could not bind is started again on another port.
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
from daybook_embedded.data_directory import DataDirectory, open_data_directory
from daybook_embedded.errors import EmbeddedError, with_log
from daybook_embedded.locks import Lock
from daybook_embedded.ports import candidates
from daybook_embedded.supervisor import Child, Program

ATTEMPTS = 10
POLL_SECONDS = 0.02
STOP_TIMEOUT_SECONDS = 10.0
# Messages of the servers about a port in use; the last is RabbitMQ's about its distribution port.
PORT_IN_USE = ("address already in use", "eaddrinuse", "in use by")


class Server(ABC):
    """A private server, from `start` to `stop`; also a context manager."""

    name: ClassVar[str]
    stop_signals: ClassVar[Sequence[Signals]] = (SIGTERM, SIGKILL)

    def __init__(
        self, data_dir: Path, *, port: int | None = None, start_timeout: float = 120.0
    ) -> None:
        """Set the data folder and the preferred port, by default that of the last start."""
        self.data_dir = data_dir
        self.url = ""
        self.pid = 0
        self._preferred_port = port
        self._start_timeout = start_timeout
        self._lock: Lock | None = None
        self._children: list[Child] = []

    def start(self) -> str:
        """Start the server, wait until it is ready, and return its URL."""
        if self.is_running:
            return self.url
        self.stop()
        try:
            directory = open_data_directory(self.data_dir)
            self._lock = directory.acquire_lock()
            return self._start(directory)
        except OSError as error:
            self.stop()
            raise EmbeddedError(_explain(error, self.data_dir)) from error
        except BaseException:
            self.stop()
            raise

    @property
    def is_running(self) -> bool:
        """Whether the server was started and all its processes still run."""
        return bool(self.url) and all(child.is_running for child in self._children)

    def stop(self) -> None:
        """Stop the server, first gracefully and then by force, and unlock the folder."""
        try:
            while self._children:
                self._children[-1].stop(timeout=STOP_TIMEOUT_SECONDS)
                self._children.pop()
        finally:
            if not self._children and self._lock is not None:
                self._lock.release()
                self._lock, self.url, self.pid = None, "", 0

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    @abstractmethod
    def prepare(self, directory: DataDirectory) -> None:
        """Create the data, or clean up after an earlier crash."""

    @abstractmethod
    def programs(self, directory: DataDirectory, *, port: int) -> Sequence[Program]:
        """Return the programs to start, in this order; the last one is the server."""

    @abstractmethod
    def is_ready(self, directory: DataDirectory, child: Child) -> bool:
        """Return whether `child`, the server process, has reported that it accepts clients."""

    @abstractmethod
    def url_for(self, directory: DataDirectory, *, port: int) -> str:
        """Return the URL for clients."""

    def recover(self, directory: DataDirectory) -> None:  # noqa: B027 # most servers need nothing
        """Repair, on the running server, what a kill of the previous one may have broken."""

    def run(self, program: Program, directory: DataDirectory, *, timeout: float = 60.0) -> None:
        """Run a program of the server to its end, as the server's account."""
        child = Child(program, directory)
        self._children.append(child)
        if not child.wait(timeout=timeout):
            raise with_log(f"{program.name} did not end within {timeout:.0f} s.", log=directory.log)
        self._children.remove(child)
        if child.status != 0:
            raise with_log(f"{program.name} failed with status {child.status}.", log=directory.log)

    def _start(self, directory: DataDirectory) -> str:
        self._stop_survivors(directory)
        is_first_start = not directory.data.exists()
        self.prepare(directory)
        deadline = time.monotonic() + self._start_timeout
        for port in islice(candidates(self._preferred_port, directory.last_port()), ATTEMPTS):
            if self._start_at(directory, port, deadline=deadline):
                directory.write("port", str(port))
                self.url, self.pid = self.url_for(directory, port=port), self._children[-1].pid
                if not is_first_start:
                    self.recover(directory)
                return self.url
        raise with_log(
            f"No free port was found for {self.name} in {ATTEMPTS} attempts.", log=directory.log
        )

    def _stop_survivors(self, directory: DataDirectory) -> None:
        for name, process in directory.recorded_processes().items():
            if not processes.stop(process, signals=self.stop_signals, timeout=STOP_TIMEOUT_SECONDS):
                raise EmbeddedError(
                    f"Process {process.pid} ({name}) of an earlier start in {directory.folder} "
                    "does not end; kill it by hand."
                )
            directory.remove_process_record(name)

    def _start_at(self, directory: DataDirectory, port: int, *, deadline: float) -> bool:
        """Start at this port; return False if the port was busy, raise if another cannot help."""
        for program in self.programs(directory, port=port):
            self._children.append(Child(program, directory))
        while all(child.is_running for child in self._children):
            if self.is_ready(directory, self._children[-1]):
                return True
            if time.monotonic() > deadline:
                raise with_log(
                    f"{self.name} was not ready within {self._start_timeout:.0f} s.",
                    log=directory.log,
                )
            time.sleep(POLL_SECONDS)
        ended = [child for child in self._children if not child.is_running]
        *helpers, _ = self._children
        output = "".join(child.output() for child in self._children).lower()
        while self._children:
            self._children.pop().stop(timeout=STOP_TIMEOUT_SECONDS)
        # A helper process can fail only because of its port, and epmd does not log that.
        if any(text in output for text in PORT_IN_USE) or any(child in helpers for child in ended):
            return False
        statuses = ", ".join(f"{child.program.name} with {child.status}" for child in ended)
        raise with_log(f"{self.name} ended while starting ({statuses}).", log=directory.log)


def _explain(error: OSError, folder: Path) -> str:
    if isinstance(error, PermissionError):
        return (
            f"{error}. It belongs to another user: start as that user, or change the owner of "
            f"everything in {folder} with `chown -R`."
        )
    return f"{error}. Correct that, or choose another folder than {folder}."
