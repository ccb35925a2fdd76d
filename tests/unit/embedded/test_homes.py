"""What does the folder of a server remember?"""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from daybook_embedded.data_directory import Home
from daybook_embedded.errors import EmbeddedError, with_log
from daybook_embedded.locks import Lock
from daybook_embedded.processes import Process


def test_the_password_stays_the_same_and_is_nobody_elses(tmp_path: Path) -> None:
    home = Home(tmp_path, None)

    password = home.password()

    assert len(password) >= 32
    assert home.password() == password
    assert tmp_path.joinpath("password").stat().st_mode & 0o777 == 0o600


def test_a_process_is_remembered_until_it_is_forgotten(tmp_path: Path) -> None:
    home = Home(tmp_path, None)
    home.remember("server", Process(4711, "then"))

    assert home.processes() == {"server": Process(4711, "then")}
    home.forget("server")
    assert home.processes() == {}


def test_a_spoiled_record_names_no_process(tmp_path: Path) -> None:
    tmp_path.joinpath("server.process").write_text("")

    assert Home(tmp_path, None).processes() == {}


def test_a_link_in_place_of_a_file_of_ours_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    home = Home(tmp_path / "home", None)
    home.folder.mkdir()
    home.folder.joinpath("port").symlink_to(victim)

    home.write("port", "15000")

    assert victim.read_text() == "precious"
    assert home.port() == 15000


def test_a_lock_names_its_holder_and_can_be_had_again(tmp_path: Path) -> None:
    first, second = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    first.acquire()

    with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"):
        second.acquire()

    first.release()
    second.acquire()
    second.release()


def test_an_error_ends_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("".join(f"line {number}\n" for number in range(1, 41)))

    message = str(with_log("It failed.", log=log))

    assert message.startswith("It failed.")
    assert message.endswith("line 39\nline 40")
    assert "line 20\n" not in message


def test_a_lock_that_a_dead_process_left_to_its_child_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The child inherits the lock and ends soon; the name in it is that of nobody alive.
        lock.write(str(2**31 - 1))
        lock.flush()
        child = subprocess.Popen(["sleep", "0.2"], pass_fds=[lock.fileno()])

    ours = Lock(file)
    ours.acquire()
    ours.release()

    assert child.wait(10) == 0
