"""Shell file with the environment of a running `daybook run`, to be sourced with `.`."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Write a file that exports the variables and puts `daybook` on the PATH; mode 0600."""
    commands = shlex.quote(str(Path(sys.executable).parent))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join([*lines, f'export PATH={commands}:"$PATH"', ""]))
