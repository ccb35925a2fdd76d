"""Interrupts of the `daybook` script."""

import os
import signal
import subprocess
import sys
from pathlib import Path


def test_an_interrupt_during_the_import_leaves_no_traceback(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("daybook")
    # Prints the name of each module after its import.
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    with subprocess.Popen(
        [script, "run"], env=environment, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as loading:
        try:
            assert loading.stderr is not None
            line = ""
            while "sqlalchemy" not in line:
                line = loading.stderr.readline()
                assert line, "the command ended before it imported anything"
            loading.send_signal(signal.SIGINT)
            rest = loading.stderr.read()
        except BaseException:
            loading.kill()
            raise

    assert "Traceback" not in rest
    assert loading.returncode == 130


def test_tests_can_interrupt_processes_even_where_interrupts_are_ignored() -> None:
    """A shell ignores SIGINT in its background jobs, as in `nohup make test &`."""
    test = f"{__file__}::test_an_interrupt_during_the_import_leaves_no_traceback"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    tests = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert tests.returncode == 0, tests.stdout
