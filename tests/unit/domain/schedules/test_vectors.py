"""What the tests of other crons expect: followed where they agree, and told in the docs where not.

`vectors/` holds it in a notation of ours; a source is the project and its file of tests:

apscheduler       APScheduler, master of January 2026 (to be 4.0), tests/triggers/test_cron.py
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

Seconds are left out where they are 0. Where a source counts the instant it starts at, we start a
minute before; where it names none, because none matters, the date is of our choosing.
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
DOCS = HERE.parents[3] / "docs" / "schedules.md"


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
def test_what_others_expect_comes_true(
    source: str, timezone: str, expression: str, after: str, expected: str
) -> None:
    wanted = instants(expected)

    assert fires(expression, timezone=timezone, after=after, number=len(wanted)) == wanted, source


@pytest.mark.parametrize(("sources", "expression"), REFUSED)
def test_what_others_refuse_is_refused(sources: str, expression: str) -> None:
    with pytest.raises(InvalidCron):
        due_times.validate(expression)


@pytest.mark.parametrize(
    ("rule", "source", "timezone", "expression", "after", "there", "here"), DIFFERENCES
)
def test_where_daybook_differs_it_does_as_its_docs_say(
    rule: str, source: str, timezone: str, expression: str, after: str, there: str, here: str
) -> None:
    assert here != there
    if here == "refused":
        with pytest.raises(InvalidCron):
            due_times.validate(expression)
    else:
        wanted = instants(here)
        assert fires(expression, timezone=timezone, after=after, number=len(wanted)) == wanted


def test_the_docs_have_a_row_for_each_rule_that_differs_and_no_other() -> None:
    told = re.findall(r"^\| \*\*(.+?)\*\*", DOCS.read_text(), re.MULTILINE)

    assert sorted(told) == sorted({rule for rule, *_ in DIFFERENCES})
