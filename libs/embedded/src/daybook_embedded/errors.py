"""The error of embedded servers, and log excerpts for its messages."""

from pathlib import Path

TAIL_LINES = 20


class EmbeddedError(Exception):
    """A private server cannot run; the message contains the reason and what to do."""


def with_log(message: str, *, log: Path) -> EmbeddedError:
    """Return an error whose message ends with the last lines of the server's log."""
    tail = log_tail(log)
    if not tail:
        return EmbeddedError(f"{message} Its log, {log}, is empty.")
    return EmbeddedError(f"{message} The end of its log, {log}:\n{tail}")


def log_tail(log: Path, *, lines: int = TAIL_LINES) -> str:
    """Return the last lines of `log`; empty if the file does not exist."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
