"""Private Postgres: durability, isolation, and starts after crashes."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import psutil
import pytest

from daybook_embedded import processes
from daybook_embedded.accounts import account_for
from daybook_embedded.binaries import postgres_programs
from daybook_embedded.data_directory import DataDirectory, open_data_directory
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.ports import free_port
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.processes import Process
from daybook_embedded.supervisor import Program
from tests.support.waiting import wait_until

END_SECONDS = 10


@pytest.fixture(scope="module")
def cluster(shared_folder: Path) -> Path:
    """Return the folder of a stopped server with one row."""
    with PostgresServer(shared_folder / "postgres", durable=False) as server:
        asyncio.run(execute(server.url, "CREATE TABLE stored AS SELECT 42 AS number"))
    return shared_folder / "postgres"


@pytest.fixture
def server(cluster: Path) -> Iterator[PostgresServer]:
    """Return the stopped server with one row, stopped again after the test."""
    server = PostgresServer(cluster, durable=False)
    yield server
    server.stop()


def directory_of(server: PostgresServer) -> DataDirectory:
    """Return the data directory of a server."""
    return open_data_directory(server.data_dir)


async def execute(url: str, statement: str) -> None:
    """Execute a statement."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def stored_number(url: str) -> int:
    """Return the row that the cluster was created with."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT number FROM stored"))
    finally:
        await connection.close()


def start_unrecorded(server: PostgresServer, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a program as the server's account, without a process record."""
    account = account_for(server.data_dir)
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


async def test_the_url_opens_a_utf8_database_on_loopback_only(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.start())
    row = await connection.fetchrow(
        "SELECT current_database() AS name, current_user AS owner, pg_encoding_to_char(encoding) AS"
        " encoding, datcollate, current_setting('fsync') AS fsync"
        " FROM pg_database WHERE datname = current_database()"
    )
    await connection.close()

    listening = {c.laddr.ip for c in psutil.Process(server.pid).net_connections("inet")}
    assert row is not None
    assert tuple(row) == ("daybook", "daybook", "UTF8", "C.UTF-8", "off")
    assert listening == {"127.0.0.1"}
    assert not [c for c in psutil.Process(server.pid).net_connections("unix") if c.laddr]


async def test_data_and_url_survive_a_stop(server: PostgresServer) -> None:
    first = server.start()
    server.stop()

    second = server.start()

    assert second == first
    assert await stored_number(second) == 42


async def test_a_wrong_password_does_not_open_the_database(server: PostgresServer) -> None:
    password = directory_of(server).ensure_password()
    url = server.start().replace(password, "guess")

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url)


def test_a_stop_leaves_no_process(server: PostgresServer) -> None:
    server.start()
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]

    server.stop()

    assert len(family) > 1
    assert not [process for process in family if process.is_running()]
    assert not directory_of(server).recorded_processes()


async def test_a_stop_does_not_wait_for_clients(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.start())
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("DELETE FROM stored")

    await asyncio.wait_for(asyncio.to_thread(server.stop), timeout=END_SECONDS)

    connection.terminate()
    assert await stored_number(await asyncio.to_thread(server.start)) == 42


async def test_a_killed_postmaster_loses_no_committed_row(server: PostgresServer) -> None:
    await execute(server.start(), "CREATE TABLE killed AS SELECT 43 AS number")
    os.kill(server.pid, signal.SIGKILL)

    server.stop()
    server.start()

    # Raises if the table does not exist.
    await execute(server.url, "DROP TABLE killed")


async def test_a_server_outlives_the_thread_that_started_it(
    server: PostgresServer,
) -> None:
    # The kernel ties the parent death signal to a thread, and a pool ends its threads.
    with ThreadPoolExecutor() as pool:
        await asyncio.get_running_loop().run_in_executor(pool, server.start)

    assert await stored_number(server.url) == 42


async def test_a_surviving_postmaster_is_replaced(server: PostgresServer) -> None:
    directory = directory_of(server)
    pg_ctl = str(postgres_programs(directory.account) / "pg_ctl")
    options = f"-p {free_port()} -c unix_socket_directories="
    by_hand = [pg_ctl, "start", "-w", "-D", str(directory.data), "-o", options, "-l", os.devnull]
    assert start_unrecorded(server, by_hand).wait(END_SECONDS) == 0
    survivor = psutil.Process(int(directory.data.joinpath("postmaster.pid").read_text().split()[0]))

    url = server.start()

    assert not survivor.is_running() or survivor.status() == psutil.STATUS_ZOMBIE
    assert await stored_number(url) == 42


async def test_a_reused_pid_affects_neither_its_new_process_nor_the_start(
    server: PostgresServer,
) -> None:
    directory = directory_of(server)
    unrelated = start_unrecorded(server, ["sleep", "60"])
    directory.record_process("postgres", Process(unrelated.pid, "another time"))
    lock_file = directory.data / "postmaster.pid"
    lock_file.write_text(
        f"{unrelated.pid}\n{directory.data}\n1700000000\n5999\n\n127.0.0.1\n1 1\nready\n"
    )
    directory.chown_to_account(lock_file)

    url = server.start()

    assert unrelated.poll() is None
    unrelated.kill()
    unrelated.wait(END_SECONDS)
    assert await stored_number(url) == 42


async def test_a_zombie_postmaster_does_not_prevent_the_start(
    server: PostgresServer,
) -> None:
    """In many containers process 1 reaps orphans late or never."""
    directory = directory_of(server)
    zombie = start_unrecorded(server, ["true"])
    await wait_until(lambda: is_zombie(zombie.pid), what="the end of the process")
    lock_file = directory.data / "postmaster.pid"
    lock_file.write_text(
        f"{zombie.pid}\n{directory.data}\n1700000000\n5999\n\n127.0.0.1\n1 1\nready\n"
    )
    directory.chown_to_account(lock_file)

    url = server.start()

    assert await stored_number(url) == 42
    assert zombie.wait(END_SECONDS) == 0


async def is_zombie(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_busy_port_is_not_used(server: PostgresServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        busy = listener.getsockname()[1]
        # As if the last start had used it.
        directory_of(server).write("port", str(busy))

        url = server.start()

    assert f":{busy}/" not in url


class PortRacePostgres(PostgresServer):
    """A server whose first port is taken between the check that it is free and the bind."""

    rival: socket.socket | None = None

    def programs(self, directory: DataDirectory, *, port: int) -> Sequence[Program]:
        """Listen on the first port."""
        self.rival = self.rival or socket.create_server(("127.0.0.1", port))
        return super().programs(directory, port=port)


async def test_a_port_that_is_taken_before_the_bind_is_replaced_by_another(
    server: PostgresServer,
) -> None:
    racing = PortRacePostgres(server.data_dir, durable=False)
    with racing:
        assert racing.rival is not None
        with racing.rival:
            assert f":{racing.rival.getsockname()[1]}/" not in racing.url
            assert await stored_number(racing.url) == 42


def test_a_second_start_in_the_same_folder_fails_with_the_pid_of_the_first(
    server: PostgresServer,
) -> None:
    server.start()

    with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}.*another folder"):
        PostgresServer(server.data_dir).start()

    assert processes.find(server.pid) is not None


def test_a_failed_start_shows_the_log_and_unlocks_the_folder(server: PostgresServer) -> None:
    version = directory_of(server).data / "PG_VERSION"
    version.write_text("9\n")

    with pytest.raises(EmbeddedError, match="incompatible with server"):
        server.start()

    version.write_text("18\n")
    assert server.start()


def test_data_without_its_password_is_refused(server: PostgresServer) -> None:
    directory = directory_of(server)
    password = directory.ensure_password()
    directory.folder.joinpath("password").unlink()

    with pytest.raises(EmbeddedError, match="password is missing"):
        server.start()

    directory.write("password", password)
    assert server.start()


async def test_an_interrupted_first_start_is_repeated(folder: Path) -> None:
    unfinished = folder / "postgres" / "data.new-1"
    unfinished.mkdir(parents=True)
    unfinished.joinpath("PG_VERSION").write_text("18\n")

    with PostgresServer(folder / "postgres", durable=False) as server:
        await execute(server.url, "SELECT 1")

    assert not unfinished.exists()


async def test_the_callers_environment_variables_do_not_reach_the_server(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    server.start()

    names = {name for name in psutil.Process(server.pid).environ() if name.startswith("PG")}
    assert names <= {"PG_GRANDPARENT_PID"}


async def test_a_killed_server_can_be_started_again(server: PostgresServer) -> None:
    server.start()
    killed = psutil.Process(server.pid)
    killed.kill()
    psutil.wait_procs([killed], timeout=END_SECONDS)

    url = server.start()

    assert server.pid != killed.pid
    assert await stored_number(url) == 42


def test_a_file_in_place_of_the_folder_is_named_in_the_error(folder: Path) -> None:
    folder.joinpath("postgres").write_text("not a folder")

    with pytest.raises(EmbeddedError, match=r"postgres.*choose another folder"):
        PostgresServer(folder / "postgres").start()
