"""Script between fork and exec: drops privileges and ties the server's life to its parent's.

It runs in a fresh interpreter, because code that runs in the forked process itself could block on a
lock that another thread of the parent had at the fork. It ends in `exec`, so the pid stays.

    exec_child.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM [ARGUMENT ...]
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
UNCHANGED = -1
ORPHANED = 75


def main(arguments: list[str]) -> None:
    """Change the account, set the parent death signal, and execute the program."""
    parent, death_signal, uid, gid = (int(number) for number in arguments[:4])
    command = arguments[4:]
    _reset_signals()
    if uid != UNCHANGED:
        _drop_privileges(uid, gid)
    # After the change of the account, which clears the parent death signal.
    _set_parent_death_signal(death_signal)
    if os.getppid() != parent:
        sys.exit(ORPHANED)
    os.execv(command[0], command)


def _reset_signals() -> None:
    """Reset the signals that the parent, its shell, or Python itself ignores or blocks."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def _drop_privileges(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _set_parent_death_signal(death_signal: int) -> None:
    # Linux only. Elsewhere a server may outlive a killed parent, and the next start stops it.
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
