"""Data directories of servers: data, password, port, log and process records.

lock  password  port  server.log  *.process     owned by the caller
data/                                           owned by the account that the server runs as
"""

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from daybook_embedded.accounts import Account, account_for, can_reach
from daybook_embedded.errors import EmbeddedError
from daybook_embedded.locks import Lock
from daybook_embedded.processes import Process

logger = logging.getLogger(__name__)

# Parent of the substitutes for folders that the server's account cannot reach. Unlike /tmp it
# survives a reboot.
SHARED = Path("/var/tmp/daybook-embedded")
LOG_SIZE_BYTES = 5_000_000


@dataclass(frozen=True)
class DataDirectory:
    """The folder of one server."""

    folder: Path
    account: Account | None
    """The account that the server runs as; None for the caller's."""

    @property
    def data(self) -> Path:
        """Folder that the server itself writes to."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """File with the server's standard output and standard error."""
        return self.folder / "server.log"

    def ensure_password(self) -> str:
        """Return the password of this server, which the first call creates."""
        existing = self.read("password")
        if existing:
            return existing
        if self.data.exists():
            raise EmbeddedError(
                f"{self.folder / 'password'} is missing, and the data beside it cannot be opened "
                "without it. Restore that file, or remove the folder to start with an empty one."
            )
        password = secrets.token_urlsafe(24)
        self.write("password", password)
        return password

    def last_port(self) -> int | None:
        """Return the port of the last start."""
        text = self.read("port")
        return int(text) if text and text.isdecimal() else None

    def recorded_processes(self) -> dict[str, Process]:
        """Return by name the processes that were started here and are not known to have ended."""
        found = {}
        for record in self.folder.glob("*.process"):
            pid, _, started = record.read_text().strip().partition(" ")
            if pid.isdecimal():
                found[record.stem] = Process(int(pid), started)
        return found

    def record_process(self, name: str, process: Process) -> None:
        """Record a process, so that a later start can find it."""
        self.write(f"{name}.process", f"{process.pid} {process.started}")

    def remove_process_record(self, name: str) -> None:
        """Remove the record of a process that has ended."""
        self.folder.joinpath(f"{name}.process").unlink(missing_ok=True)

    def read(self, name: str) -> str | None:
        """Return the stripped content of a file in the folder, or None if it does not exist."""
        try:
            return self.folder.joinpath(name).read_text().strip()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Replace a file in the folder atomically, readable only by the owner of the folder."""
        temporary = self.folder / f".{name}.new"
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}\n")
            self._chown_to_folder_owner(descriptor)
        temporary.replace(self.folder / name)

    def open_log(self) -> int:
        """Return a descriptor that appends to the log; a long log is rotated first."""
        if self.log.exists() and self.log.stat().st_size > LOG_SIZE_BYTES:
            self.log.replace(self.folder / "server.log.1")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(self.log, flags, 0o600)
        self._chown_to_folder_owner(descriptor)
        return descriptor

    def acquire_lock(self) -> Lock:
        """Lock the folder for this process. Raises `EmbeddedError` if another process has it."""
        lock = Lock(self.folder / "lock")
        self._chown_to_folder_owner(lock.acquire())
        return lock

    def chown_to_account(self, path: Path) -> None:
        """Make the server's account the owner of a file or an empty folder."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)

    def _chown_to_folder_owner(self, descriptor: int) -> None:
        # After a start by root, the owner of the folder must still be able to start the server.
        if os.geteuid() == 0:
            owner = self.folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def open_data_directory(data_dir: Path) -> DataDirectory:
    """Create the folder if necessary and return it, or a substitute that the account can reach."""
    folder = data_dir.absolute()
    account = account_for(folder)
    _create(folder)
    if account is None:
        return DataDirectory(folder, None)
    if not can_reach(account, folder):
        return DataDirectory(_substitute(folder, account), account)
    # The account may traverse the folder to reach `data`, which it owns, but not list it.
    folder.chmod(folder.stat().st_mode & 0o7777 | 0o111)
    return DataDirectory(folder, account)


def _create(folder: Path) -> None:
    """Create a folder and its missing parents, with the owner of the closest existing one."""
    if folder.is_dir():
        return
    _create(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o711)
        if os.geteuid() == 0:
            parent = folder.parent.stat()
            os.chown(folder, parent.st_uid, parent.st_gid)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a temporary folder for servers, which every account can reach."""
    folder = Path(mkdtemp(prefix="daybook-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shared_folder() -> Path:
    """Return the folder under /var/tmp that only root can write to and every account can reach."""
    SHARED.mkdir(mode=0o755, exist_ok=True)
    status = SHARED.lstat()
    # Any user may write to /var/tmp, so another user may have created this folder first.
    if not SHARED.is_dir() or SHARED.is_symlink() or status.st_uid != 0 or status.st_mode & 0o022:
        raise EmbeddedError(f"{SHARED} is not a folder that only root can write to; remove it.")
    SHARED.chmod(0o755)
    return SHARED


def _substitute(folder: Path, account: Account) -> Path:
    """Return the folder under `SHARED` that is used instead of `folder`; log a warning."""
    name = f"{folder.name}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    _remove_stale_substitutes(shared_folder())
    substitute = SHARED / name
    substitute.mkdir(mode=0o711, exist_ok=True)
    substitute.chmod(0o711)
    substitute.joinpath("stands-for").write_text(f"{folder}\n")
    note = f"{account.name}, the server's account, cannot reach {folder}; using {substitute}."
    folder.joinpath("ELSEWHERE").write_text(f"{note}\n")
    logger.warning(note)
    return substitute


def _remove_stale_substitutes(shared: Path) -> None:
    """Remove the substitutes for temporary folders that no longer exist."""
    for note in shared.glob("*/stands-for"):
        folder, lock = Path(note.read_text().strip()), Lock(note.with_name("lock"))
        if folder.exists() or not folder.is_relative_to(gettempdir()):
            continue
        with suppress(EmbeddedError):
            lock.acquire()
            shutil.rmtree(note.parent, ignore_errors=True)
            lock.release()
