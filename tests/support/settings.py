"""What does a service say to an environment that it cannot start in?"""

from collections.abc import Callable

import pytest


def refusal(start: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is said when `start` ends the process, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        start()
    assert ended.value.code == 2
    return capsys.readouterr().err
