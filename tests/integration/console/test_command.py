"""Interrupts of the `daybook` script."""

import os
import signal
import subprocess
import sys
from pathlib import Path


def test_an_interrupt_during_the_import_leaves_no_traceback() -> None:
    script = Path(sys.executable).with_name("daybook")
    # Prints the name of each module after its import.
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    with subprocess.Popen(
        [script, "run"], env=environment, stderr=subprocess.PIPE, text=True
    ) as loading:
        assert loading.stderr is not None
        line = ""
        while "sqlalchemy" not in line:
            line = loading.stderr.readline()
            assert line, "the command ended before it imported anything"
        loading.send_signal(signal.SIGINT)
        rest = loading.stderr.read()

    assert "Traceback" not in rest
    assert loading.returncode == 130
