"""How does a shell reach what `daybook run` runs? By a file to be read with `.`"""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path


def write(path: Path, variables: Mapping[str, str]) -> None:
    """Write what sets the variables, and finds the `daybook` command, readable only by us."""
    commands = shlex.quote(str(Path(sys.executable).parent))
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join([*lines, f'export PATH={commands}:"$PATH"', ""]))
