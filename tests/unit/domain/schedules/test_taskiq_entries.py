"""Parsing of entries of TaskIQ's schedule source, and the problems of invalid entries."""

import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from daybook_domain.schedules import taskiq_entries
from daybook_domain.schedules.cron import due_times
from daybook_domain.schedules.taskiq_entries import InvalidEntry, ScheduleEntry

TASK = "reports.build"
AT = datetime(2026, 11, 24, 22, 30, tzinfo=UTC)


def encode(**fields: Any) -> bytes:
    return json.dumps(
        {"task_name": TASK, "labels": {}, "args": [], "kwargs": {}, **fields}
    ).encode()


def parse(**fields: Any) -> ScheduleEntry:
    return taskiq_entries.parse_entry("entry-1", encode(**fields), timezone="Europe/Berlin")


def test_a_cron_defaults_to_utc_and_reports_the_day_before() -> None:
    definition = parse(cron="0 9 * * 1-5").definition

    assert (definition.name, definition.cron) == ("entry-1", "0 9 * * 1-5")
    assert (definition.timezone, definition.report_offset_days) == ("UTC", -1)


@pytest.mark.parametrize(
    ("offset", "zone"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("PT3H", "Etc/GMT-3"),
        ("-PT5H", "Etc/GMT+5"),
        ("PT0S", "UTC"),
        ("PT14H", "Etc/GMT-14"),
    ],
)
def test_a_cron_offset_is_a_zone_name_or_whole_hours(offset: str, zone: str) -> None:
    definition = parse(cron="0 9 * * *", cron_offset=offset).definition

    assert definition.timezone == zone
    fire = due_times.next_fire("0 9 * * *", timezone=zone, after=AT)
    if offset == "PT3H":
        assert fire == datetime(2026, 11, 25, 6, tzinfo=UTC)


@pytest.mark.parametrize("label", [0, "0", "-3", -3])
def test_the_offset_label_selects_the_reported_date(label: object) -> None:
    labels = {"report_offset_days": label}
    assert parse(cron="@hourly", labels=labels).definition.report_offset_days == int(str(label))


@pytest.mark.parametrize("time", ["2026-11-24T22:30:00", "2026-11-24T23:30:00+01:00"])
def test_an_entry_with_a_time_fires_once(time: str) -> None:
    entry = parse(time=time)

    definition = entry.definition
    assert entry.at == AT
    assert (definition.timezone, definition.report_offset_days) == ("Europe/Berlin", -1)
    due = list(
        due_times.iter_fires(
            definition.cron, timezone="UTC", after=datetime.min.replace(tzinfo=UTC)
        )
    )
    assert due == [AT]
    assert due_times.next_fire(definition.cron, timezone="UTC", after=AT) is None


@pytest.mark.parametrize(
    "arguments", [{"args": ["2026-11-20"]}, {"kwargs": {"report_date": "2026-11-20"}}]
)
def test_an_entry_with_a_time_may_name_the_reported_date(arguments: dict[str, Any]) -> None:
    # In the time zone of business days the entry fires on the 24th, at 23:30.
    assert parse(time="2026-11-24T22:30:00", **arguments).definition.report_offset_days == -4


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (pickle.dumps({"task_name": TASK}), "pickle is never loaded"),
        (b"{", "cannot be parsed"),
        (b"\xff\x00", "cannot be parsed"),
        (b"[]", "cannot be parsed"),
        (encode(task_name="other", cron="* * * * *"), "unknown task 'other'"),
        (encode(cron="61 * * * *"), "cron: minute: 61 is not 0-59 (position 1)"),
        (encode(cron="0 0 30 2 *"), "cron: day-of-month: none of the months has a day 30"),
        (encode(cron="@at 2026-11-24T22:30:00+00:00"), "has 2 fields"),
        (encode(cron="0 9 * * *", cron_offset="Mars/Olympus"), "timezone: 'Mars/Olympus'"),
        (encode(cron="0 9 * * *", cron_offset="PT90M"), "is not -12 to 14 whole hours"),
        (encode(cron="0 9 * * *", cron_offset="PT15H"), "is not -12 to 14 whole hours"),
        (encode(cron="0 9 * * *", args=["2026-11-20"]), "and no arguments"),
        (encode(cron="0 9 * * *", labels={"report_offset_days": "x"}), "is not a whole number"),
        (encode(cron="0 9 * * *", labels={"report_offset_days": 1}), "is not -3660 to 0"),
        (encode(time="soon"), "cannot be parsed: time"),
        (encode(time="2026-11-24T22:30:00", args=["2026-11-25"]), "is not -3660 to 0"),
        (encode(time="2026-11-24T22:30:00", args=["x"]), "x is not a date"),
        (encode(time="2026-11-24T22:30:00", args=[1]), "expected one argument at most"),
        (encode(time="2026-11-24T22:30:00", kwargs={"day": "2026-11-20"}), "expected one"),
        (encode(interval=60), "intervals have no due times"),
    ],
)
def test_an_invalid_entry_is_rejected_with_the_problem(raw: bytes, problem: str) -> None:
    with pytest.raises(InvalidEntry) as rejected:
        taskiq_entries.parse_entry("entry-1", raw, timezone="UTC")

    assert problem in rejected.value.detail
    assert len(rejected.value.detail) <= 500


def test_a_one_shot_expression_is_not_valid_user_input() -> None:
    with pytest.raises(Exception, match="has 2 fields"):
        due_times.validate(due_times.one_shot(AT))
