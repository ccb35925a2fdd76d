"""Permission checks of accounts agree with the kernel."""

import os
from pathlib import Path

import pytest

from daybook_embedded.accounts import Account, can_execute, can_reach


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a program that only its owner can execute."""
    file = tmp_path / "program"
    file.touch(mode=0o700)
    return file


OWNER = Account("owner", os.geteuid(), 2**31)
OTHER = Account("other", 2**31, 2**31)


def test_the_owner_can_execute_a_file_that_only_the_owner_may(file: Path) -> None:
    assert can_execute(OWNER, file) == can_reach(OWNER, file)


def test_another_account_cannot_execute_it(file: Path) -> None:
    assert not can_execute(OTHER, file)


def test_a_closed_folder_anywhere_above_makes_a_file_unreachable(file: Path) -> None:
    file.chmod(0o755)
    file.parent.chmod(0o700)

    assert not can_reach(OTHER, file / "below" / "it")


def test_the_group_class_takes_precedence_over_the_other_class(file: Path) -> None:
    member = Account("member", 2**31, file.stat().st_gid)
    file.chmod(0o705)

    assert not can_execute(member, file)
