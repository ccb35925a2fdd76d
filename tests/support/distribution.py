"""Distribution of the tests to processes.

pytest-xdist 3.8 does not see its own mark `xdist_group` under pytest 9, so the groups are listed.
"""

from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "tests/e2e/test_daybook_run.py": "daybook run",
    "tests/e2e/test_chaos.py": "faults",
    "tests/e2e/test_conservation.py": "faults",
    "tests/e2e/": "stack",
    "tests/integration/scheduler/test_query_plans.py": "query plans",
    "tests/integration/embedded/test_rabbitmq.py": "embedded RabbitMQ",
    "tests/integration/worker/test_memory.py": "memory",
    "tests/integration/api/test_process.py": "memory",
}
"""Groups by the beginning of the path. Each runs in one process: its tests share servers or data
that take long to create, or need so much memory that they run one after the other."""


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc] # xdist ships no types.
    """A scheduling that begins with the groups and continues with single tests, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return find_group(nodeid) or nodeid


def find_group(nodeid: str) -> str | None:
    """Return the group of a test, if it has one."""
    return next((group for path, group in GROUPS.items() if nodeid.startswith(path)), None)
