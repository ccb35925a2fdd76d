"""The three services as child processes of `daybook run`, started as in production."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM

import httpx

from daybook_embedded import processes
from daybook_embedded.data_directory import DataDirectory
from daybook_embedded.errors import with_log
from daybook_embedded.supervisor import Child, Program

STOP_TIMEOUT_SECONDS = 30.0
READY_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ServiceDefinition:
    """A service: its command, its environment, and the URL of its readiness."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready_url: str
    folder: Path
    """Folder of its log."""

    @property
    def log(self) -> Path:
        """File with the output of the service."""
        return DataDirectory(self.folder, account=None).log


class ServiceGroup:
    """The processes of the services, which can be restarted when they end."""

    def __init__(self, services: Sequence[ServiceDefinition]) -> None:
        """Set the services; `start` starts them."""
        self._services = services
        self._children: dict[str, Child] = {}

    def start(self) -> None:
        """Start all services and wait until all are ready."""
        for service in self._services:
            self._children[service.name] = _start(service)
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        for service in self._services:
            _wait_until_ready(service, self._children[service.name], deadline)

    def restart_ended(self) -> Sequence[str]:
        """Restart the services that have ended; return their names."""
        ended = [s for s in self._services if not self._children[s.name].is_running]
        for service in ended:
            self._children[service.name] = _start(service)
        return [service.name for service in ended]

    def stop(self) -> None:
        """Stop all services concurrently; kill those that do not stop in time."""
        children = list(self._children.values())
        for child in children:
            if process := processes.find(child.pid):
                process.send(SIGTERM)
        for child in children:
            child.stop(timeout=STOP_TIMEOUT_SECONDS)
        self._children.clear()


def script(name: str) -> str:
    """Return the path of a command that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def _start(service: ServiceDefinition) -> Child:
    service.folder.mkdir(parents=True, exist_ok=True)
    program = Program(
        name=service.name,
        command=service.command,
        stop_signals=(SIGTERM, SIGKILL),
        # When `daybook run` is killed, a service still gets the time for a graceful shutdown.
        death_signal=SIGTERM,
        environment={**os.environ, **service.environment},
    )
    return Child(program, DataDirectory(service.folder, account=None))


def _wait_until_ready(service: ServiceDefinition, child: Child, deadline: float) -> None:
    while not _is_ready(service.ready_url):
        if not child.is_running:
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
