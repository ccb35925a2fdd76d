"""`make mutants`: tries small faults in the modules that carry promises, and prints the survivors.

A seeded sample of faults (`COUNT`, `SEED`, `ONLY` in the environment) is applied one at a time to a
copy of the repository, and the tests of the feature run against it. A fault that no test notices
survives: a guard without a test, or code that makes no difference.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.mutations import Mutant, list_mutants
from tests.support.servers import POSTGRES, RABBITMQ, REDIS, provide

ROOT = Path(__file__).parents[2]
PROCESSES = 2
TIMEOUT_SECONDS = 240

_DOMAIN = "libs/domain/src/daybook_domain"
SCOPES: Mapping[str, Sequence[str]] = {
    f"{_DOMAIN}/runs": ("tests/integration/domain/runs",),
    f"{_DOMAIN}/reports": (
        "tests/unit/domain/reports",
        "tests/integration/domain/reports",
        "tests/integration/api/reports",
    ),
    f"{_DOMAIN}/schedules": (
        "tests/unit/domain/schedules",
        "tests/integration/domain/schedules",
        "tests/integration/api/schedules",
    ),
    f"{_DOMAIN}/backfills": ("tests/unit/domain/backfills", "tests/integration/domain/backfills"),
    f"{_DOMAIN}/intake": ("tests/unit/domain/intake", "tests/integration/domain/intake"),
    f"{_DOMAIN}/orders": ("tests/unit/domain/orders", "tests/integration/domain/orders"),
    f"{_DOMAIN}/catalog/stock.py": ("tests/integration/domain/orders",),
    "services/worker/src/daybook_worker": ("tests/integration/worker",),
    "services/scheduler/src/daybook_scheduler": ("tests/integration/scheduler",),
    "libs/platform/src/daybook_platform/rabbitmq": (
        "tests/integration/platform/rabbitmq",
        "tests/integration/worker/test_intake.py",
    ),
}
"""The modules that are mutated, and the tests that have to notice."""

EXCLUDED = {"models.py", "errors.py", "metrics.py", "settings.py", "asyncapi.py", "__init__.py"}


@dataclass(frozen=True)
class Trial:
    """One fault in one module."""

    path: Path
    mutant: Mutant
    tests: Sequence[str]


@dataclass(frozen=True)
class Workspace:
    """A copy of the repository with its own part of each test server."""

    folder: Path
    environment: Mapping[str, str]

    def passes(self, tests: Sequence[str]) -> bool:
        """Return whether the tests pass; a run without an end counts as a failure."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            result = subprocess.run(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return result.returncode == 0


def main() -> None:
    """Run the sample and print each survivor and the kill rate."""
    count, seed = int(os.environ.get("COUNT", "40")), int(os.environ.get("SEED", "1"))
    trials = choose_trials(count=count, seed=seed, only=os.environ.get("ONLY", ""))
    print(f"{len(trials)} faults, seed {seed}")
    survivors = []
    with workspaces(PROCESSES) as free, ThreadPoolExecutor(PROCESSES) as pool:
        require_green(free, {trial.tests for trial in trials})

        def survives(trial: Trial) -> bool:
            workspace = free.get()
            try:
                return try_fault(workspace, trial)
            finally:
                free.put(workspace)

        for trial, survived in zip(trials, pool.map(survives, trials), strict=True):
            print("S" if survived else ".", end="", flush=True)
            if survived:
                survivors.append(trial)
    for trial in survivors:
        source = (ROOT / trial.path).read_text()
        print(f"\n\nsurvived: {trial.path}:{trial.mutant.line}\n{trial.mutant.describe(source)}")
    killed = len(trials) - len(survivors)
    print(f"\n{killed} of {len(trials)} faults were noticed: {killed / len(trials):.0%}")


def choose_trials(*, count: int, seed: int, only: str) -> list[Trial]:
    """Return a sample of faults, about as many for each scope; `only`: part of a module's path."""
    chosen = random.Random(seed)
    groups = []
    for scope, tests in SCOPES.items():
        trials = [
            Trial(path.relative_to(ROOT), mutant, tests)
            for path in _modules(ROOT / scope)
            if only in str(path)
            for mutant in list_mutants(path.read_text())
        ]
        chosen.shuffle(trials)
        groups.append(trials)
    sample: list[Trial] = []
    while len(sample) < count and any(groups):
        sample += [group.pop() for group in groups if group][: count - len(sample)]
    return sample


def _modules(scope: Path) -> Iterator[Path]:
    found = [scope] if scope.suffix else sorted(scope.rglob("*.py"))
    return (path for path in found if path.name not in EXCLUDED)


def require_green(free: "SimpleQueue[Workspace]", suites: set[Sequence[str]]) -> None:
    """Exit when tests fail without a fault: then nothing could be learned from a failure."""
    workspace = free.get()
    for tests in sorted(suites, key=str):
        if not workspace.passes(tests):
            raise SystemExit(f"{' '.join(tests)} fail without a fault; correct that first")
    free.put(workspace)


def try_fault(workspace: Workspace, trial: Trial) -> bool:
    """Return whether the tests pass although the fault is there."""
    module = workspace.folder / trial.path
    source = module.read_text()
    module.write_text(trial.mutant.apply(source))
    try:
        return workspace.passes(trial.tests)
    finally:
        module.write_text(source)


@contextmanager
def workspaces(count: int) -> Iterator["SimpleQueue[Workspace]"]:
    """Yield copies of the repository that share one set of servers."""
    kinds = (POSTGRES, RABBITMQ, REDIS)
    servers = [provide(kind) for kind in kinds]
    free: SimpleQueue[Workspace] = SimpleQueue()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(count):
                copy = Path(folder) / str(number)
                _copy_repository(copy)
                parts = {
                    kind.variable: kind.partition_url(server, number)
                    for kind, server in zip(kinds, servers, strict=True)
                }
                sources = [str(path) for path in copy.glob("*/*/src")]
                paths = {"PYTHONPATH": os.pathsep.join([*sources, str(copy)])}
                free.put(Workspace(copy, os.environ | parts | paths))
            yield free
    finally:
        for server in servers:
            server.stop()


def _copy_repository(target: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


if __name__ == "__main__":
    main()
