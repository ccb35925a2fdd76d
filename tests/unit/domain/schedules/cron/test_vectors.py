"""Test vectors from the tests of other cron libraries; the docs list where Daybook differs.

`vectors/` contains them in Daybook's own notation. The sources, each a project and its test files:

apscheduler       APScheduler, master of January 2026 (future 4.0), tests/triggers/test_cron.py
cron-expression   dragonmantank/cron-expression 3.6.0, tests/Cron
cron-parser       harrisiirak/cron-parser 5.10.0, tests/CronExpressionParser.test.ts
cronexpr          gorhill/cronexpr 1.0.0, cronexpr_test.go
croniter          croniter 6.0.0, src/croniter/tests/test_croniter.py
cronos            HangfireIO/Cronos 0.13.0, tests/Cronos.Tests/CronExpressionFacts.cs
cronsim           cronsim 2.7, tests/test_cronsim.py
crontab           josiahcarlson/parse-crontab 1.0.5, tests/test_crontab.py
fugit             floraison/fugit 1.14.0, test/cron_test.rb
ncrontab          atifaziz/NCrontab 3.4.0, NCrontab.Tests/CrontabScheduleTests.cs
robfig            robfig/cron 3.0.1, spec_test.go and parser_test.go
temporal          temporalio/temporal, master of August 2026, common/backoff/cron_test.go and
                  service/worker/scheduler/spec_test.go

Seconds are omitted if they are 0. Where a source includes its start instant, the vector starts a
minute earlier; where a source has no start, because it does not matter, the date is arbitrary.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pytest

from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.errors import InvalidCron

HERE = Path(__file__).parent
DOCS = HERE.parents[4] / "docs" / "schedules.md"


def rows(name: str) -> Iterator[tuple[str, ...]]:
    for line in (HERE / "vectors" / name).read_text().splitlines():
        if not line.startswith("#"):
            yield tuple(cell.strip() for cell in line.split("|"))


AGREED, DIFFERENCES, REFUSED = map(
    list, map(rows, ("agreed.txt", "differences.txt", "refused.txt"))
)


def fires(expression: str, *, timezone: str, after: str, number: int) -> list[datetime]:
    start = datetime.fromisoformat(after).astimezone(UTC)
    due_times.validate(expression)
    return list(islice(due_times.iter_fires(expression, timezone=timezone, after=start), number))


def instants(text: str) -> list[datetime]:
    return [datetime.fromisoformat(instant) for instant in text.split()]


@pytest.mark.parametrize(("source", "timezone", "expression", "after", "expected"), AGREED)
def test_a_vector_that_daybook_agrees_with_has_the_expected_fires(
    source: str, timezone: str, expression: str, after: str, expected: str
) -> None:
    wanted = instants(expected)

    assert fires(expression, timezone=timezone, after=after, number=len(wanted)) == wanted, source


@pytest.mark.parametrize(("sources", "expression"), REFUSED)
def test_an_expression_that_other_libraries_reject_is_rejected(
    sources: str, expression: str
) -> None:
    with pytest.raises(InvalidCron):
        due_times.validate(expression)


@pytest.mark.parametrize(
    ("rule", "source", "timezone", "expression", "after", "there", "here"), DIFFERENCES
)
def test_a_vector_that_daybook_differs_from_has_the_documented_result(
    rule: str, source: str, timezone: str, expression: str, after: str, there: str, here: str
) -> None:
    assert here != there
    if here == "refused":
        with pytest.raises(InvalidCron):
            due_times.validate(expression)
    else:
        wanted = instants(here)
        assert fires(expression, timezone=timezone, after=after, number=len(wanted)) == wanted


def test_the_docs_have_exactly_one_row_for_each_differing_rule() -> None:
    documented = re.findall(r"^\| \*\*(.+?)\*\*", DOCS.read_text(), re.MULTILINE)

    assert sorted(documented) == sorted({rule for rule, *_ in DIFFERENCES})
