"""What does an entry of TaskIQ's schedule source mean here, and what is wrong with it?"""

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


def written(**said: Any) -> bytes:
    return json.dumps({"task_name": TASK, "labels": {}, "args": [], "kwargs": {}, **said}).encode()


def read(**said: Any) -> ScheduleEntry:
    return taskiq_entries.parse_entry("theirs", written(**said), timezone="Europe/Berlin")


def test_a_cron_is_in_utc_and_reports_the_day_before() -> None:
    definition = read(cron="0 9 * * 1-5").definition

    assert (definition.name, definition.cron) == ("theirs", "0 9 * * 1-5")
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
def test_a_cron_may_be_in_a_zone_or_so_many_hours_ahead(offset: str, zone: str) -> None:
    definition = read(cron="0 9 * * *", cron_offset=offset).definition

    assert definition.timezone == zone
    fire = due_times.next_fire("0 9 * * *", timezone=zone, after=AT)
    if offset == "PT3H":
        assert fire == datetime(2026, 11, 25, 6, tzinfo=UTC)


@pytest.mark.parametrize("label", [0, "0", "-3", -3])
def test_a_label_says_which_date_is_reported(label: object) -> None:
    labels = {"report_offset_days": label}
    assert read(cron="@hourly", labels=labels).definition.report_offset_days == int(str(label))


@pytest.mark.parametrize("time", ["2026-11-24T22:30:00", "2026-11-24T23:30:00+01:00"])
def test_a_time_comes_true_once(time: str) -> None:
    entry = read(time=time)

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
    "said", [{"args": ["2026-11-20"]}, {"kwargs": {"report_date": "2026-11-20"}}]
)
def test_a_time_may_name_the_date_that_is_reported(said: dict[str, Any]) -> None:
    # In the zone of business days it is the 24th, half an hour before midnight.
    assert read(time="2026-11-24T22:30:00", **said).definition.report_offset_days == -4


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (pickle.dumps({"task_name": TASK}), "pickle is never loaded"),
        (b"{", "it cannot be read"),
        (b"\xff\x00", "it cannot be read"),
        (b"[]", "it cannot be read"),
        (written(task_name="other", cron="* * * * *"), "unknown task 'other'"),
        (written(cron="61 * * * *"), "cron: minute: 61 is not 0-59 (position 1)"),
        (written(cron="0 0 30 2 *"), "cron: day-of-month: none of the months has a day 30"),
        (written(cron="@at 2026-11-24T22:30:00+00:00"), "has 2 fields"),
        (written(cron="0 9 * * *", cron_offset="Mars/Olympus"), "timezone: 'Mars/Olympus'"),
        (written(cron="0 9 * * *", cron_offset="PT90M"), "is not -12 to 14 whole hours"),
        (written(cron="0 9 * * *", cron_offset="PT15H"), "is not -12 to 14 whole hours"),
        (written(cron="0 9 * * *", args=["2026-11-20"]), "and no arguments"),
        (written(cron="0 9 * * *", labels={"report_offset_days": "x"}), "is not a whole number"),
        (written(cron="0 9 * * *", labels={"report_offset_days": 1}), "is not -3660 to 0"),
        (written(time="soon"), "it cannot be read: time"),
        (written(time="2026-11-24T22:30:00", args=["2026-11-25"]), "is not -3660 to 0"),
        (written(time="2026-11-24T22:30:00", args=["x"]), "x is not a date"),
        (written(time="2026-11-24T22:30:00", args=[1]), "expected one argument at most"),
        (written(time="2026-11-24T22:30:00", kwargs={"day": "2026-11-20"}), "expected one"),
        (written(interval=60), "intervals have no due times"),
    ],
)
def test_what_cannot_be_fired_says_why(raw: bytes, said: str) -> None:
    with pytest.raises(InvalidEntry) as refused:
        taskiq_entries.parse_entry("theirs", raw, timezone="UTC")

    assert said in refused.value.detail
    assert len(refused.value.detail) <= 500


def test_people_do_not_write_what_comes_true_once() -> None:
    with pytest.raises(Exception, match="has 2 fields"):
        due_times.validate(due_times.once(AT))
