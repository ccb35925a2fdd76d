"""As whom do the servers run, and what can that account reach?

Postgres refuses to run as root, and the others had better not. So root gives its servers to the
owner of the folder that the data lives in or, if that is root too, to an account without rights.
"""

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from daybook_embedded.errors import EmbeddedError

UNPRIVILEGED = ("nobody", "daemon")


@dataclass(frozen=True)
class Account:
    """Somebody else, whom a server runs as."""

    name: str
    uid: int
    gid: int


def account_for(folder: Path) -> Account | None:
    """Return whom a server with its data in `folder` runs as; None means ourselves."""
    if os.geteuid() != 0:
        return None
    owner = next(parent for parent in (folder, *folder.parents) if parent.exists()).stat().st_uid
    return _find(owner) if owner != 0 and _find(owner) else _unprivileged()


def can_reach(account: Account, path: Path) -> bool:
    """Say whether the mode bits let `account` pass through every folder above `path`."""
    return all(_may(account, parent, stat.S_IXOTH) for parent in _existing_parents(path))


def can_use(account: Account, file: Path) -> bool:
    """Say whether the mode bits let `account` reach, read and run `file`."""
    real = file.resolve()
    return can_reach(account, real) and _may(account, real, stat.S_IROTH | stat.S_IXOTH)


def _existing_parents(path: Path) -> Iterator[Path]:
    return (parent for parent in path.resolve().parents if parent.exists())


def _may(account: Account, path: Path, wanted: int) -> bool:
    """Compare with `wanted`, bits of the class `other`, in the class that `account` belongs to."""
    about = path.stat()
    if about.st_uid == account.uid:
        return about.st_mode >> 6 & wanted == wanted
    if about.st_gid == account.gid:
        return about.st_mode >> 3 & wanted == wanted
    return about.st_mode & wanted == wanted


def _find(uid: int) -> Account | None:
    # Postgres insists on an account with a name, so a bare number will not do.
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _unprivileged() -> Account:
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "Postgres refuses to run as root and this machine has no unprivileged account "
        f"({' or '.join(UNPRIVILEGED)}); run as another user."
    )
