"""Log excerpts in the messages of embedded server errors."""

from pathlib import Path

from daybook_embedded.errors import with_log


def test_an_error_ends_with_the_last_lines_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("".join(f"line {number}\n" for number in range(1, 41)))

    message = str(with_log("It failed.", log=log))

    assert message.startswith("It failed.")
    assert message.endswith("line 39\nline 40")
    assert "line 20\n" not in message
