"""Files in the data directory of a server."""

from pathlib import Path

from daybook_embedded.data_directory import DataDirectory
from daybook_embedded.processes import Process


def test_the_password_is_stable_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, None)

    password = directory.ensure_password()

    assert len(password) >= 32
    assert directory.ensure_password() == password
    assert tmp_path.joinpath("password").stat().st_mode & 0o777 == 0o600


def test_a_process_is_recorded_until_its_record_is_removed(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path, None)
    directory.record_process("server", Process(4711, "then"))

    assert directory.recorded_processes() == {"server": Process(4711, "then")}
    directory.remove_process_record("server")
    assert directory.recorded_processes() == {}


def test_a_corrupt_record_names_no_process(tmp_path: Path) -> None:
    tmp_path.joinpath("server.process").write_text("")

    assert DataDirectory(tmp_path, None).recorded_processes() == {}


def test_a_symbolic_link_in_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    directory = DataDirectory(tmp_path / "directory", None)
    directory.folder.mkdir()
    directory.folder.joinpath("port").symlink_to(target)

    directory.write("port", "15000")

    assert target.read_text() == "precious"
    assert directory.last_port() == 15000
