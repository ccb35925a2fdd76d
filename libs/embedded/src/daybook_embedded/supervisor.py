"""Start, supervision and stop of one child process.

Each child runs in a session of its own, so Ctrl-C in a terminal reaches the caller and not the
child, and it ends when the caller is killed. Linux ties the parent death signal to the thread that
forked, so a dedicated thread forks the child and waits for it; the calling thread may end earlier.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from daybook_embedded import exec_child, processes
from daybook_embedded.data_directory import DataDirectory
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.processes import Process

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Program:
    """A command with its environment, standard input and stop signals."""

    name: str
    command: Sequence[str]
    stop_signals: Sequence[Signals] = (signal.SIGTERM, signal.SIGKILL)
    """Signals of `Child.stop`, from graceful to forced."""
    death_signal: Signals = signal.SIGKILL
    """Signal that the kernel sends when this process is killed."""
    environment: Mapping[str, str] = field(default_factory=dict)
    input: Path | None = None


class Child:
    """A running program, recorded in its data directory until it ends."""

    def __init__(self, program: Program, directory: DataDirectory) -> None:
        """Start the program. Raises `EmbeddedError` if it cannot be executed."""
        self.program = program
        self._directory = directory
        self._log = directory.open_log()
        self._log_start = os.fstat(self._log).st_size
        self._forked = threading.Event()
        self._ended = threading.Event()
        self._process: Process | None = None
        self._failure: OSError | None = None
        self.status: int | None = None
        threading.Thread(
            target=self._supervise, name=f"{program.name} supervisor", daemon=True
        ).start()
        self._forked.wait()
        if self._failure is not None:
            raise EmbeddedError(f"Cannot start {program.command[0]}: {self._failure}.")

    @property
    def pid(self) -> int:
        """Process id of the program itself."""
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._process is not None and self._process.is_alive()

    def wait(self, *, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the program's end; return whether it ended."""
        return self._ended.wait(timeout)

    def output(self) -> str:
        """Return what was written to the log since the program was started."""
        with self._directory.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def stop(self, *, timeout: float) -> None:
        """Send the stop signals in turn until it ends, waiting `timeout` seconds after each."""
        for number in self.program.stop_signals:
            if self._process is not None:
                self._process.send(number)
            if self.wait(timeout=timeout):
                return
        raise EmbeddedError(f"Process {self.pid} ({self.program.name}) does not end.")

    def _supervise(self) -> None:
        try:
            process = self._fork()
        except OSError as error:
            self._failure = error
            self._ended.set()
            return
        finally:
            os.close(self._log)
            self._forked.set()
        self.status = process.wait()
        self._directory.remove_process_record(self.program.name)
        self._ended.set()

    def _fork(self) -> "subprocess.Popen[bytes]":
        directory = self._directory
        account = directory.account
        owner = (
            (account.uid, account.gid) if account else (exec_child.UNCHANGED, exec_child.UNCHANGED)
        )
        numbers = (os.getpid(), int(self.program.death_signal), *owner)
        with (self.program.input or Path(os.devnull)).open("rb") as standard_input:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", exec_child.__file__),
                    *(str(number) for number in numbers),
                    *self.program.command,
                ],
                stdin=standard_input,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                cwd=directory.data if directory.data.exists() else directory.folder,
                env=self._environment(),
                start_new_session=True,
            )
        self._process = processes.find(process.pid)
        if self._process is not None:
            directory.record_process(self.program.name, self._process)
        return process

    def _environment(self) -> dict[str, str]:
        # Only the search path is inherited: PGDATA or RABBITMQ_NODENAME would misconfigure servers.
        search = os.pathsep.join(filter(None, [os.environ.get("PATH"), PATH]))
        fixed = {
            "PATH": search,
            "HOME": str(self._directory.data),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
        }
        return {**fixed, **self.program.environment}
