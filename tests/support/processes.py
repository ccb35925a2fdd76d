"""How does a test run the services as the processes that they are, and do harm to them?"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

STOP_SECONDS = 30.0


class Service:
    """One running service; also a context manager that ends it."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> None:
        """Start it; what it says is appended to `log`."""
        self.log = log
        program, *arguments = command
        ours = {k: v for k, v in os.environ.items() if not k.startswith("DAYBOOK_")}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *arguments],
                env={**ours, **environment},
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Say whether it has not ended."""
        return self._process.poll() is None

    def said(self) -> str:
        """Return what it has written."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would (SIGKILL), and its children: TaskIQ's command has some."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """Ask it to end (SIGTERM), wait for that, and return its exit code."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"did not end in time; its log:\n{self.said()[-4000:]}") from None

    def __enter__(self) -> Self:
        """Give it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it, however it is."""
        if self.running:
            self.kill()
