"""Error messages of services that cannot start with their settings."""

from collections.abc import Callable

import pytest


def get_startup_error(start: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """Call `start`, which must exit with code 2, and return its standard error."""
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 2
    return capsys.readouterr().err
