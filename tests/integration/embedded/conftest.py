"""Folders for the servers of these tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from daybook_embedded.data_directory import scratch_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder for servers, removed after the test."""
    with scratch_folder() as path:
        yield path


@pytest.fixture(scope="module")
def shared_folder() -> Iterator[Path]:
    """Return a folder for servers, removed after the last test of the module."""
    with scratch_folder() as path:
        yield path
