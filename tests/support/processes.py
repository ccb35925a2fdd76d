"""Services that run as processes, and their JSON logs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import wait_until

STOP_SECONDS = 30.0


class Service:
    """A service process; as a context manager, it is killed at the end."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> None:
        """Start the process in the folder of `log`, and append its output to `log`."""
        self.log = log
        program, *arguments = command
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DAYBOOK_")}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).with_name(program)), *arguments],
                env={**inherited, **environment},
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
        """Whether the process is running."""
        return self._process.poll() is None

    def read_log(self) -> str:
        """Return the output of the process."""
        return self.log.read_text(errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process and its children (SIGKILL): the `taskiq` command has some."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """Terminate the process (SIGTERM), even if it is stopped, and return its exit code."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for the process to exit, and return its exit code."""
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"the process did not exit within {STOP_SECONDS:g} s; its log:\n"
                f"{self.read_log()[-4000:]}"
            ) from None

    def __enter__(self) -> Self:
        """Return the service, which is already started."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process if it still runs."""
        if self.running:
            self.kill()


def find_log_entry(service: Service, message: str) -> dict[str, Any]:
    """Return the first log entry with `message`, or {} if there is none."""
    lines = [json.loads(line) for line in service.read_log().splitlines() if line.startswith("{")]
    return next((line for line in lines if line["message"] == message), {})


async def wait_for_log_entry(service: Service, message: str) -> dict[str, Any]:
    """Wait for the log entry with `message` and return it; fail if the service exits first."""

    async def find() -> dict[str, Any]:
        entry = find_log_entry(service, message)
        assert entry or service.running, service.read_log()
        return entry

    return await wait_until(find, seconds=20, what=f"logging {message!r}")


async def wait_for_health_url(service: Service) -> str:
    """Wait for the health server of the service, and return its URL."""
    entry = await wait_for_log_entry(service, "health server started")
    return f"http://127.0.0.1:{entry['port']}"
