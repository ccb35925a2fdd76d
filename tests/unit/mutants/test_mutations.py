"""The faults that `make mutants` tries."""

import ast

import pytest

from tests.mutants.mutations import list_mutants

SQL = '''
CLAIM = """
    SELECT id FROM report_runs WHERE lease_until < :now ORDER BY id
    FOR UPDATE SKIP LOCKED
    """
'''


@pytest.mark.parametrize(
    ("source", "faulty"),
    [
        ("found = (a) <= b", "found = (a) < b"),
        ("found = a is not None", "found = a is None"),
        ("found = a and b", "found = a or b"),
        ("found = not a", "found = (a)"),
        ("rows.with_for_update(skip_locked=True)", "rows.with_for_update(skip_locked=False)"),
        ("rows.with_for_update(skip_locked=True)", "rows"),
        ("rows.order_by(a).limit(n)", "rows.limit(n)"),
        ("async def f():\n    await lock()", "async def f():\n    pass"),
        ("def f(run):\n    run.fence += 1", "def f(run):\n    pass"),
        (SQL, SQL.replace(" SKIP LOCKED", "")),
        (SQL, SQL.replace("<", "<=")),
        (SQL, SQL.replace(" ORDER BY id", "")),
    ],
)
def test_a_fault_is_tried(source: str, faulty: str) -> None:
    assert faulty in {mutant.apply(source) for mutant in list_mutants(source)}


@pytest.mark.parametrize(
    "source", ['"""A < B; SELECT."""', "LIMIT = 5", "@dataclass(frozen=True)\nclass A:\n    x: int"]
)
def test_what_has_no_behaviour_gets_no_fault(source: str) -> None:
    assert list_mutants(source) == []


def test_every_fault_can_be_compiled() -> None:
    source = (
        "def f(a, b):\n    if not (a < b and b != 1):\n        return [x for x in a if x in b]\n"
    )
    mutants = list_mutants(source)

    assert len(mutants) == 6
    for mutant in mutants:
        ast.parse(mutant.apply(source))
        assert mutant.describe(source).startswith("- ")
