"""Do the mode bits mean to us what they mean to the kernel?"""

import os
from pathlib import Path

import pytest

from daybook_embedded.accounts import Account, can_reach, can_use


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Give a program that only its owner can use."""
    file = tmp_path / "program"
    file.touch(mode=0o700)
    return file


OWNER = Account("owner", os.geteuid(), 2**31)
STRANGER = Account("stranger", 2**31, 2**31)


def test_the_owner_may_use_what_only_the_owner_may(file: Path) -> None:
    assert can_use(OWNER, file) == can_reach(OWNER, file)


def test_a_stranger_may_not(file: Path) -> None:
    assert not can_use(STRANGER, file)


def test_a_closed_folder_anywhere_above_is_in_the_way(file: Path) -> None:
    file.chmod(0o755)
    file.parent.chmod(0o700)

    assert not can_reach(STRANGER, file / "below" / "it")


def test_the_class_of_the_group_goes_before_that_of_others(file: Path) -> None:
    member = Account("member", 2**31, file.stat().st_gid)
    file.chmod(0o705)

    assert not can_use(member, file)
