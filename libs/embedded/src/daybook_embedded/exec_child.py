"""How does a process become a server that neither outlives us nor runs as root?

Run as a script, in a fresh interpreter: what must happen between fork and exec happens here, where
no thread of the parent can have left a lock behind. It ends in `exec`, so the pid stays.

    launch.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM [ARGUMENT ...]
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
UNCHANGED = -1
ORPHANED = 75


def main(arguments: list[str]) -> None:
    """Change identity, tie this process to its parent, and become the program."""
    parent, death_signal, uid, gid = (int(number) for number in arguments[:4])
    command = arguments[4:]
    _reset_signals()
    if uid != UNCHANGED:
        _become(uid, gid)
    # After the change of identity, which would have undone it.
    _die_with_parent(death_signal)
    if os.getppid() != parent:
        sys.exit(ORPHANED)
    os.execv(command[0], command)


def _reset_signals() -> None:
    """Undo what the parent's shell or threads ignore and block, and what Python itself ignores."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


def _become(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _die_with_parent(death_signal: int) -> None:
    # Linux only. Elsewhere a server may outlive a killed parent, and the next start ends it.
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
