"""What can an embedded server refuse?"""

from pathlib import Path

TAIL_LINES = 20


class EmbeddedError(Exception):
    """A private server cannot run; the message says why and what to do about it."""


def with_log(message: str, *, log: Path) -> EmbeddedError:
    """Return an error that ends with the last lines of the server's log."""
    tail = log_tail(log)
    if not tail:
        return EmbeddedError(f"{message} Its log, {log}, is empty.")
    return EmbeddedError(f"{message} The end of its log, {log}:\n{tail}")


def log_tail(log: Path, *, lines: int = TAIL_LINES) -> str:
    """Return the last lines of `log`, or nothing where there is no log."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
