"""Does a private Postgres keep its data and its distance, whatever happened before?"""

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
from daybook_embedded.data_directory import Home, open_home
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.ports import free_port
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.processes import Process
from daybook_embedded.supervisor import Program
from tests.support.waiting import until

END_SECONDS = 10


@pytest.fixture(scope="module")
def cluster(shared_folder: Path) -> Path:
    """Give the folder of a stopped server that holds one row."""
    with PostgresServer(shared_folder / "postgres", durable=False) as server:
        asyncio.run(execute(server.url, "CREATE TABLE kept AS SELECT 42 AS number"))
    return shared_folder / "postgres"


@pytest.fixture
def server(cluster: Path) -> Iterator[PostgresServer]:
    """Give the stopped server with one row in it."""
    server = PostgresServer(cluster, durable=False)
    yield server
    server.stop()


def home_of(server: PostgresServer) -> Home:
    """Return the folder of a server."""
    return open_home(server.data_dir)


async def execute(url: str, statement: str) -> None:
    """Run a statement."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def kept(url: str) -> int:
    """Return the row that the cluster was made with."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval("SELECT number FROM kept"))
    finally:
        await connection.close()


def stranger(server: PostgresServer, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Run a program as the server's account, which nothing of ours knows about."""
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
    assert await kept(second) == 42


async def test_a_wrong_password_does_not_open_the_database(server: PostgresServer) -> None:
    password = home_of(server).password()
    url = server.start().replace(password, "guess")

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url)


def test_a_stop_leaves_no_process(server: PostgresServer) -> None:
    server.start()
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]

    server.stop()

    assert len(family) > 1
    assert not [process for process in family if process.is_running()]
    assert not home_of(server).processes()


async def test_a_stop_does_not_wait_for_clients(server: PostgresServer) -> None:
    connection = await asyncpg.connect(server.start())
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("DELETE FROM kept")

    await asyncio.wait_for(asyncio.to_thread(server.stop), timeout=END_SECONDS)

    connection.terminate()
    assert await kept(await asyncio.to_thread(server.start)) == 42


async def test_a_killed_postmaster_costs_no_committed_row(server: PostgresServer) -> None:
    await execute(server.start(), "CREATE TABLE killed AS SELECT 43 AS number")
    os.kill(server.pid, signal.SIGKILL)

    server.stop()
    server.start()

    # It would raise if the table were not there.
    await execute(server.url, "DROP TABLE killed")


async def test_a_server_lives_on_when_the_thread_that_started_it_ends(
    server: PostgresServer,
) -> None:
    # The kernel ties the death signal to a thread, and pools end theirs.
    with ThreadPoolExecutor() as pool:
        await asyncio.get_running_loop().run_in_executor(pool, server.start)

    assert await kept(server.url) == 42


async def test_a_postmaster_that_survived_is_replaced(server: PostgresServer) -> None:
    home = home_of(server)
    pg_ctl = str(postgres_programs(home.account) / "pg_ctl")
    options = f"-p {free_port()} -c unix_socket_directories="
    by_hand = [pg_ctl, "start", "-w", "-D", str(home.data), "-o", options, "-l", os.devnull]
    assert stranger(server, by_hand).wait(END_SECONDS) == 0
    survivor = psutil.Process(int(home.data.joinpath("postmaster.pid").read_text().split()[0]))

    url = server.start()

    assert not survivor.is_running() or survivor.status() == psutil.STATUS_ZOMBIE
    assert await kept(url) == 42


async def test_a_reused_pid_harms_neither_its_new_owner_nor_the_start(
    server: PostgresServer,
) -> None:
    home = home_of(server)
    bystander = stranger(server, ["sleep", "60"])
    home.remember("postgres", Process(bystander.pid, "another time"))
    lock_file = home.data / "postmaster.pid"
    lock_file.write_text(
        f"{bystander.pid}\n{home.data}\n1700000000\n5999\n\n127.0.0.1\n1 1\nready\n"
    )
    home.give(lock_file)

    url = server.start()

    assert bystander.poll() is None
    bystander.kill()
    bystander.wait(END_SECONDS)
    assert await kept(url) == 42


async def test_a_dead_postmaster_that_nobody_has_waited_for_does_not_hinder_the_start(
    server: PostgresServer,
) -> None:
    """Under a process 1 that is slow to do so, or never does, as in many containers."""
    home = home_of(server)
    zombie = stranger(server, ["true"])
    await until(lambda: is_zombie(zombie.pid), what="the death of the process")
    lock_file = home.data / "postmaster.pid"
    lock_file.write_text(f"{zombie.pid}\n{home.data}\n1700000000\n5999\n\n127.0.0.1\n1 1\nready\n")
    home.give(lock_file)

    url = server.start()

    assert await kept(url) == 42
    assert zombie.wait(END_SECONDS) == 0


async def is_zombie(pid: int) -> bool:
    return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_a_busy_port_is_left_to_its_owner(server: PostgresServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        busy = owner.getsockname()[1]
        # As if it had been ours at the last start.
        home_of(server).write("port", str(busy))

        url = server.start()

    assert f":{busy}/" not in url


class Outrun(PostgresServer):
    """A server whose first port is taken by somebody between our look and its bind."""

    rival: socket.socket | None = None

    def programs(self, home: Home, *, port: int) -> Sequence[Program]:
        """Take the first port."""
        self.rival = self.rival or socket.create_server(("127.0.0.1", port))
        return super().programs(home, port=port)


async def test_a_port_lost_at_the_last_moment_means_another_one(server: PostgresServer) -> None:
    outrun = Outrun(server.data_dir, durable=False)
    with outrun:
        assert outrun.rival is not None
        with outrun.rival:
            assert f":{outrun.rival.getsockname()[1]}/" not in outrun.url
            assert await kept(outrun.url) == 42


def test_the_second_of_two_starters_is_told_who_was_first(server: PostgresServer) -> None:
    server.start()

    with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}.*another folder"):
        PostgresServer(server.data_dir).start()

    assert processes.find(server.pid) is not None


def test_a_start_that_fails_shows_the_log_and_frees_the_folder(server: PostgresServer) -> None:
    version = home_of(server).data / "PG_VERSION"
    version.write_text("9\n")

    with pytest.raises(EmbeddedError, match="incompatible with server"):
        server.start()

    version.write_text("18\n")
    assert server.start()


def test_data_without_its_password_is_refused(server: PostgresServer) -> None:
    home = home_of(server)
    password = home.password()
    home.folder.joinpath("password").unlink()

    with pytest.raises(EmbeddedError, match="password is missing"):
        server.start()

    home.write("password", password)
    assert server.start()


async def test_an_interrupted_first_start_is_begun_again(folder: Path) -> None:
    half = folder / "postgres" / "data.new-1"
    half.mkdir(parents=True)
    half.joinpath("PG_VERSION").write_text("18\n")

    with PostgresServer(folder / "postgres", durable=False) as server:
        await execute(server.url, "SELECT 1")

    assert not half.exists()


async def test_the_callers_settings_of_other_servers_do_not_leak(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    server.start()

    names = {name for name in psutil.Process(server.pid).environ() if name.startswith("PG")}
    assert names <= {"PG_GRANDPARENT_PID"}


async def test_a_server_that_ended_by_itself_is_started_again(server: PostgresServer) -> None:
    server.start()
    killed = psutil.Process(server.pid)
    killed.kill()
    psutil.wait_procs([killed], timeout=END_SECONDS)

    url = server.start()

    assert server.pid != killed.pid
    assert await kept(url) == 42


def test_a_file_in_place_of_the_folder_is_named(folder: Path) -> None:
    folder.joinpath("postgres").write_text("not a folder")

    with pytest.raises(EmbeddedError, match=r"postgres.*choose another folder"):
        PostgresServer(folder / "postgres").start()
