"""Unprivileged accounts that servers run as, and permission checks for them.

Postgres refuses to run as root, and Valkey and RabbitMQ should not. When the caller is root, the
servers run as the owner of the data folder or, if root owns it too, as an account without rights.
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
    """An operating system account other than the caller's."""

    name: str
    uid: int
    gid: int


def account_for(folder: Path) -> Account | None:
    """Return the account for a server with its data in `folder`; None for the caller's own."""
    if os.geteuid() != 0:
        return None
    owner = next(parent for parent in (folder, *folder.parents) if parent.exists()).stat().st_uid
    return _find(owner) if owner != 0 and _find(owner) else _unprivileged()


def can_reach(account: Account, path: Path) -> bool:
    """Return whether the mode bits let `account` traverse every folder above `path`."""
    return all(_is_allowed(account, parent, stat.S_IXOTH) for parent in _existing_parents(path))


def can_execute(account: Account, file: Path) -> bool:
    """Return whether the mode bits let `account` reach, read and execute `file`."""
    real = file.resolve()
    return can_reach(account, real) and _is_allowed(account, real, stat.S_IROTH | stat.S_IXOTH)


def _existing_parents(path: Path) -> Iterator[Path]:
    return (parent for parent in path.resolve().parents if parent.exists())


def _is_allowed(account: Account, path: Path, bits: int) -> bool:
    """Compare `bits`, given for the class `other`, with those of the class of `account`."""
    status = path.stat()
    if status.st_uid == account.uid:
        return status.st_mode >> 6 & bits == bits
    if status.st_gid == account.gid:
        return status.st_mode >> 3 & bits == bits
    return status.st_mode & bits == bits


def _find(uid: int) -> Account | None:
    # Postgres requires an account with a name; a uid without an entry is not usable.
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
