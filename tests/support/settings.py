"""What does a service say to an environment that it cannot start in?"""

import pytest

from daybook_domain.settings import Settings, load


def refusal(settings: type[Settings], capsys: pytest.CaptureFixture[str]) -> str:
    """Load `settings`, and return what is said when that ends the process, with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        load(settings)
    assert ended.value.code == 2
    return capsys.readouterr().err
