"""Is an interrupt an end in good order from the first moment on?"""

import os
import signal
import subprocess
import sys
from pathlib import Path


def test_an_interrupt_while_the_command_line_is_loading_leaves_no_traceback() -> None:
    script = Path(sys.executable).with_name("daybook")
    # Tells of each module when it is there.
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    with subprocess.Popen(
        [script, "run"], env=environment, stderr=subprocess.PIPE, text=True
    ) as loading:
        assert loading.stderr is not None
        told = ""
        while "sqlalchemy" not in told:
            told = loading.stderr.readline()
            assert told, "it ended before it loaded anything"
        loading.send_signal(signal.SIGINT)
        rest = loading.stderr.read()

    assert "Traceback" not in rest
    assert loading.returncode == 130
