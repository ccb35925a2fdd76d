"""Where does a server keep its data, its password and its log?

lock  password  port  server.log  *.process     ours
data/                                           the server's own, whoever it runs as
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

# Where the servers of root live if their own account cannot reach the folder that was asked for.
# Unlike /tmp it outlives a reboot.
SHARED = Path("/var/tmp/daybook-embedded")
LOG_SIZE_BYTES = 5_000_000


@dataclass(frozen=True)
class Home:
    """The folder of one server."""

    folder: Path
    account: Account | None

    @property
    def data(self) -> Path:
        """What the server itself writes."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.folder / "server.log"

    def password(self) -> str:
        """Return the password of this server, the same at every start."""
        known = self.read("password")
        if known:
            return known
        if self.data.exists():
            raise EmbeddedError(
                f"{self.folder / 'password'} is missing, and the data beside it does not open "
                "without it. Restore that file, or remove the folder to begin with an empty one."
            )
        password = secrets.token_urlsafe(24)
        self.write("password", password)
        return password

    def port(self) -> int | None:
        """Return the port of the last start."""
        text = self.read("port")
        return int(text) if text and text.isdecimal() else None

    def processes(self) -> dict[str, Process]:
        """Return what was started here and not yet seen to end, by name."""
        found = {}
        for record in self.folder.glob("*.process"):
            pid, _, started = record.read_text().strip().partition(" ")
            if pid.isdecimal():
                found[record.stem] = Process(int(pid), started)
        return found

    def remember(self, name: str, process: Process) -> None:
        """Write down a process, so that a later start can find it."""
        self.write(f"{name}.process", f"{process.pid} {process.started}")

    def forget(self, name: str) -> None:
        """Take note that a process has ended."""
        self.folder.joinpath(f"{name}.process").unlink(missing_ok=True)

    def read(self, name: str) -> str | None:
        """Return the content of one of our files, or None if there is no such file."""
        try:
            return self.folder.joinpath(name).read_text().strip()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Replace one of our files in one step, readable only by the owner of the folder."""
        fresh = self.folder / f".{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{text}\n")
            self._give_to_owner(descriptor)
        fresh.replace(self.folder / name)

    def open_log(self) -> int:
        """Return a descriptor that appends to the log; a long log is put aside first."""
        if self.log.exists() and self.log.stat().st_size > LOG_SIZE_BYTES:
            self.log.replace(self.folder / "server.log.1")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(self.log, flags, 0o600)
        self._give_to_owner(descriptor)
        return descriptor

    def lock(self) -> Lock:
        """Return the lock on this folder, which is now taken."""
        lock = Lock(self.folder / "lock")
        self._give_to_owner(lock.acquire())
        return lock

    def give(self, path: Path) -> None:
        """Make the server's account the owner of a file or an empty folder."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid, follow_symlinks=False)

    def _give_to_owner(self, descriptor: int) -> None:
        # So that what root has started once can still be started by the owner of the folder.
        if os.geteuid() == 0:
            owner = self.folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def open_home(data_dir: Path) -> Home:
    """Create what is missing of the folder and return it, or one elsewhere that is within reach."""
    wanted = data_dir.absolute()
    account = account_for(wanted)
    _create(wanted)
    if account is None:
        return Home(wanted, None)
    if not can_reach(account, wanted):
        return Home(_elsewhere(wanted, account), account)
    # The account may pass through to `data`, which is its own, and see nothing else.
    wanted.chmod(wanted.stat().st_mode & 0o7777 | 0o111)
    return Home(wanted, account)


def _create(folder: Path) -> None:
    """Create what is missing of a folder, for whom the folder above it belongs to."""
    if folder.is_dir():
        return
    _create(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o711)
        if os.geteuid() == 0:
            above = folder.parent.stat()
            os.chown(folder, above.st_uid, above.st_gid)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a temporary folder that servers can live in, whoever they run as."""
    folder = Path(mkdtemp(prefix="daybook-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shared_folder() -> Path:
    """Return the folder of root that every account can reach."""
    SHARED.mkdir(mode=0o755, exist_ok=True)
    about = SHARED.lstat()
    # Everybody may write to /var/tmp, so somebody else may have been here first.
    if not SHARED.is_dir() or SHARED.is_symlink() or about.st_uid != 0 or about.st_mode & 0o022:
        raise EmbeddedError(f"{SHARED} is not a folder that only root can write to; remove it.")
    SHARED.chmod(0o755)
    return SHARED


def _sweep(shared: Path) -> None:
    """Remove what stood for a temporary folder that is gone: nobody will ask for it again."""
    for note in shared.glob("*/stands-for"):
        wanted, lock = Path(note.read_text().strip()), Lock(note.with_name("lock"))
        if wanted.exists() or not wanted.is_relative_to(gettempdir()):
            continue
        with suppress(EmbeddedError):
            lock.acquire()
            shutil.rmtree(note.parent, ignore_errors=True)
            lock.release()


def _elsewhere(wanted: Path, account: Account) -> Path:
    name = f"{wanted.name}-{hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12]}"
    _sweep(shared_folder())
    folder = SHARED / name
    folder.mkdir(mode=0o711, exist_ok=True)
    folder.chmod(0o711)
    folder.joinpath("stands-for").write_text(f"{wanted}\n")
    note = f"{account.name}, who runs the server, cannot reach {wanted}; it lives in {folder}."
    wanted.joinpath("ELSEWHERE").write_text(f"{note}\n")
    logger.warning(note)
    return folder
