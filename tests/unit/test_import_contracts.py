"""The import contracts of `make check`, tried with imports that they must reject."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("libs/*/src", "services/*/src")


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        (
            "daybook_domain/runs/claims.py",
            "import fastapi",
            "the domain knows no framework, broker or Redis",
        ),
        (
            "daybook_domain/runs/claims.py",
            "import daybook_domain.schedules.models",
            "layers of daybook_domain",
        ),
        (
            "daybook_worker/reports.py",
            "import daybook_api.errors",
            "services use the platform, the platform uses the domain",
        ),
        ("daybook_domain/utils.py", "", "layers of daybook_domain"),
    ],
    ids=["framework in the domain", "feature above", "other service", "module without a layer"],
)
def test_an_import_against_the_layers_fails_the_check(
    tmp_path: Path, module: str, line: str, contract: str
) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for pattern in SOURCES:
        for source in ROOT.glob(pattern):
            shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    changed = tmp_path / module
    changed.write_text(f"{line}\n{changed.read_text() if changed.exists() else ''}")

    result = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 1
    assert f"{contract} BROKEN" in result.stdout
