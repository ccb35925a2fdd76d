"""How is one server process started, watched and stopped?

Each runs in a session of its own, so Ctrl-C in a terminal reaches us and not the server, and dies
with us. Linux ties that to the thread that forked, so a thread of the child's own forks it and
then waits for it: whoever calls may come and go.
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
from daybook_embedded.data_directory import Home
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.processes import Process

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Program:
    """What to run, and how to make it stop."""

    name: str
    command: Sequence[str]
    # The signals of `stop`, the mildest first, and the one that the kernel sends if we are killed.
    stop_signals: Sequence[Signals] = (signal.SIGTERM, signal.SIGKILL)
    death_signal: Signals = signal.SIGKILL
    environment: Mapping[str, str] = field(default_factory=dict)
    input: Path | None = None


class Child:
    """A running program; it is our child, and the record in its home says so."""

    def __init__(self, program: Program, home: Home) -> None:
        """Start the program."""
        self.program = program
        self._home = home
        self._log = home.open_log()
        self.log_start = os.fstat(self._log).st_size
        self._forked = threading.Event()
        self._ended = threading.Event()
        self._process: Process | None = None
        self._failure: OSError | None = None
        self.status: int | None = None
        threading.Thread(target=self._keep, name=f"{program.name} keeper", daemon=True).start()
        self._forked.wait()
        if self._failure is not None:
            raise EmbeddedError(f"Cannot start {program.command[0]}: {self._failure}.")

    @property
    def pid(self) -> int:
        """The process id, of the program itself."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Say whether the program has not ended yet, as far as the system knows by now."""
        return self._process is not None and self._process.alive()

    def wait(self, *, timeout: float) -> bool:
        """Wait at most `timeout` seconds for the program's end and say whether it came."""
        return self._ended.wait(timeout)

    def said(self) -> str:
        """Return what the program has written since it was started."""
        with self._home.log.open("rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def stop(self, *, patience: float) -> None:
        """End the program: each of its signals in turn, `patience` seconds apart."""
        for number in self.program.stop_signals:
            if self._process is not None:
                self._process.send(number)
            if self.wait(timeout=patience):
                return
        raise EmbeddedError(f"Process {self.pid} ({self.program.name}) does not end.")

    def _keep(self) -> None:
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
        self._home.forget(self.program.name)
        self._ended.set()

    def _fork(self) -> "subprocess.Popen[bytes]":
        account = self._home.account
        owner = (
            (account.uid, account.gid) if account else (exec_child.UNCHANGED, exec_child.UNCHANGED)
        )
        tie = (os.getpid(), int(self.program.death_signal), *owner)
        with (self.program.input or Path(os.devnull)).open("rb") as standard_input:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", exec_child.__file__),
                    *(str(number) for number in tie),
                    *self.program.command,
                ],
                stdin=standard_input,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                cwd=self._home.data if self._home.data.exists() else self._home.folder,
                env=self._environment(),
                start_new_session=True,
            )
        self._process = processes.find(process.pid)
        if self._process is not None:
            self._home.remember(self.program.name, self._process)
        return process

    def _environment(self) -> dict[str, str]:
        # Nothing of the caller's but the search path: PGDATA or RABBITMQ_NODENAME would mislead.
        search = os.pathsep.join(filter(None, [os.environ.get("PATH"), PATH]))
        fixed = {
            "PATH": search,
            "HOME": str(self._home.data),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
        }
        return {**fixed, **self.program.environment}
