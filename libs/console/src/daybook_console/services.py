"""How are the three services run side by side, each as the process that it is in production?"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM

import httpx

from daybook_embedded import processes
from daybook_embedded.data_directory import Home
from daybook_embedded.errors import with_log
from daybook_embedded.supervisor import Child, Program

PATIENCE_SECONDS = 30.0
READY_SECONDS = 60.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Service:
    """One of the services: its command, and where it tells whether it is ready."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready_url: str
    folder: Path
    """Where its log lies."""

    @property
    def log(self) -> Path:
        """What the service says."""
        return Home(self.folder, account=None).log


class Services:
    """The running services; one that dies is started again, and said so."""

    def __init__(self, services: Sequence[Service]) -> None:
        """Name the services; `start` starts them."""
        self._services = services
        self._children: dict[str, Child] = {}

    def start(self) -> None:
        """Start all, and wait until all are ready."""
        for service in self._services:
            self._children[service.name] = _start(service)
        deadline = time.monotonic() + READY_SECONDS
        for service in self._services:
            _await_ready(service, self._children[service.name], deadline)

    def restart_dead(self) -> Sequence[str]:
        """Start again what has ended by itself; return its names."""
        dead = [s for s in self._services if not self._children[s.name].running]
        for service in dead:
            self._children[service.name] = _start(service)
        return [service.name for service in dead]

    def stop(self) -> None:
        """Ask all to end, and end those that do not."""
        children = list(self._children.values())
        for child in children:
            if process := processes.find(child.pid):
                process.send(SIGTERM)
        for child in children:
            child.stop(patience=PATIENCE_SECONDS)
        self._children.clear()


def script(name: str) -> str:
    """Return the path of a command that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def _start(service: Service) -> Child:
    service.folder.mkdir(parents=True, exist_ok=True)
    program = Program(
        name=service.name,
        command=service.command,
        stop_signals=(SIGTERM, SIGKILL),
        # Even when we are killed, a service gets the time to hand back what it is at.
        death_signal=SIGTERM,
        environment={**os.environ, **service.environment},
    )
    return Child(program, Home(service.folder, account=None))


def _await_ready(service: Service, child: Child, deadline: float) -> None:
    while not _is_ready(service.ready_url):
        if not child.running:
            raise with_log(
                f"{service.name} ended while starting, with status {child.status}.",
                log=service.log,
            )
        if time.monotonic() > deadline:
            raise with_log(f"{service.name} did not become ready.", log=service.log)
        time.sleep(POLL_SECONDS)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
