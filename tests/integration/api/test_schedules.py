"""Can people make schedules, change them safely, and see why something ran or did not?"""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from daybook_domain.schedules import taskiq_sync
from daybook_platform.postgres.engine import Sessions
from tests.support.schedules import MIDNIGHT, add, change, define, materialise

DAY = timedelta(days=1)
WORKDAYS = {"name": "workdays", "cron": "0 9 * * MON-FRI", "timezone": "Asia/Yekaterinburg"}


async def make(api: httpx.AsyncClient, **said: Any) -> dict[str, Any]:
    answer = await api.post("/schedules", json={**WORKDAYS, **said})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_schedule_is_made_and_shown_with_all_that_is_in_effect(
    api: httpx.AsyncClient,
) -> None:
    answer = await api.post("/schedules", json={"name": "hourly", "cron": "@hourly"})

    made = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (201, '"1"')
    assert answer.headers["location"] == f"/schedules/{made['id']}"
    assert (
        made
        | {
            "timezone": "UTC",
            "report_offset_days": -1,
            "catchup": "all",
            "catchup_window_seconds": 604800,
            "overlap": "buffer_one",
            "jitter_seconds": 0,
            "pause_on_failure": False,
            "enabled": True,
            "origin": "api",
            "version": 1,
        }
        == made
    )
    assert datetime.fromisoformat(made["next_fire_at"]) > datetime.now(UTC) - timedelta(hours=1)
    shown = await api.get(f"/schedules/{made['id']}")
    assert (shown.json(), shown.headers["etag"]) == (made, '"1"')


@pytest.mark.parametrize(
    ("said", "pointer", "why"),
    [
        ({"cron": "61 * * * *"}, "#/cron", "minute: 61 is not 0-59 (position 1)"),
        ({"cron": "0 0 30 2 *"}, "#/cron", "none of the months has a day 30"),
        ({"cron": "* * * *"}, "#/cron", "has 4 fields; expected five"),
        ({"cron": "* 2 * MAR 7L", "timezone": "Europe/Berlin"}, "#/cron", "clock changes skip all"),
        ({"timezone": "Mars/Olympus"}, "#/timezone", "is not an IANA time zone"),
        ({"report_offset_days": 1}, "#/report_offset_days", "is not -3660 to 0"),
        ({"jitter_seconds": 90_000}, "#/jitter_seconds", "is not 0-86400 seconds"),
        ({"jitter_seconds": -1}, "#/jitter_seconds", "greater than or equal to 0"),
        ({"overlap": "queue"}, "#/overlap", "buffer_one"),
        ({"crom": "* * * * *"}, "#/crom", "is not known here"),
        ({"name": ""}, "#/name", "expected a name"),
        ({"name": "a\x00"}, "#/name", "contains a NUL character (U+0000)"),
        ({"timezone": "UTC\x00"}, "#/timezone", "contains a NUL character (U+0000)"),
        ({"cron": "0 0 * * *\x00"}, "#/cron", "U+0000 is not a space (position 10)"),
    ],
)
async def test_what_cannot_be_is_refused_by_field(
    api: httpx.AsyncClient, said: dict[str, Any], pointer: str, why: str
) -> None:
    made = await make(api)

    answers = [
        await api.post("/schedules", json={**WORKDAYS, "name": "other", **said}),
        await api.patch(f"/schedules/{made['id']}", json=said, headers={"If-Match": '"1"'}),
    ]

    for answer in answers:
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert (error["location"], error["pointer"]) == ("body", pointer)
        assert why in error["detail"]


async def test_a_change_needs_the_version_that_was_read(api: httpx.AsyncClient) -> None:
    made = await make(api)
    path, new = f"/schedules/{made['id']}", {"cron": "0 10 * * *"}

    without = await api.patch(path, json=new)
    weak = await api.patch(path, json=new, headers={"If-Match": 'W/"1"'})
    first = await api.patch(path, json=new, headers={"If-Match": '"1"'})
    second = await api.put(path, json=WORKDAYS, headers={"If-Match": '"1"'})
    removing = await api.delete(path, headers={"If-Match": '"1"'})
    whatever = await api.put(path, json=WORKDAYS, headers={"If-Match": "*"})

    statuses = [a.status_code for a in (without, weak, first, second, removing, whatever)]
    assert statuses == [428, 412, 200, 412, 412, 200]
    assert without.json()["code"] == "precondition_required"
    assert second.json()["code"] == "schedule_changed"
    assert first.headers["etag"] == '"2"'
    assert first.json() == made | {
        "cron": "0 10 * * *",
        "version": 2,
        "next_fire_at": first.json()["next_fire_at"],
        "next_report_date": first.json()["next_report_date"],
        "updated_at": first.json()["updated_at"],
    }
    assert (whatever.json()["cron"], whatever.json()["version"]) == (WORKDAYS["cron"], 3)


@pytest.mark.parametrize(
    ("matching", "other"),
    [
        ([("If-Match", '"7", "1"')], [("If-Match", '"2", "3"')]),
        ([("If-Match", '"7"'), ("If-Match", 'W/"2", "1"')], [("If-Match", '"7", W/"1"')]),
        ([("If-Match", '"of,another", "1"')], [("If-Match", '"1" "2"')]),
    ],
)
async def test_a_change_needs_one_of_the_versions_that_are_named(
    api: httpx.AsyncClient, matching: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    path, new = f"/schedules/{(await make(api))['id']}", {"cron": "0 10 * * *"}

    refused = [
        await api.patch(path, json=new, headers=other),
        await api.put(path, json=WORKDAYS, headers=other),
        await api.delete(path, headers=other),
    ]
    changed = await api.patch(path, json=new, headers=matching)

    assert {answer.status_code for answer in refused} == {412}
    assert {answer.json()["code"] for answer in refused} == {"schedule_changed"}
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')


async def test_put_replaces_and_patch_leaves_the_rest(api: httpx.AsyncClient) -> None:
    made = await make(api, jitter_seconds=60, overlap="skip")
    path, now = f"/schedules/{made['id']}", {"If-Match": "*"}

    patched = (await api.patch(path, json={"catchup": "none"}, headers=now)).json()
    put = (await api.put(path, json=WORKDAYS, headers=now)).json()

    policies = ("jitter_seconds", "overlap", "catchup")
    assert [patched[name] for name in policies] == [60, "skip", "none"]
    assert [put[name] for name in policies] == [0, "buffer_one", "all"]


async def test_a_removed_schedule_is_gone_and_its_name_free(api: httpx.AsyncClient) -> None:
    made = await make(api)
    path = f"/schedules/{made['id']}"

    gone = await api.delete(path, headers={"If-Match": '"1"'})

    assert (gone.status_code, gone.content) == (204, b"")
    assert (await api.get(path)).json()["code"] == "schedule_not_found"
    assert (await make(api))["id"] != made["id"]


async def test_a_name_that_is_taken_is_a_conflict(api: httpx.AsyncClient) -> None:
    await make(api)

    answer = await api.post("/schedules", json=WORKDAYS)

    assert (answer.status_code, answer.json()["code"]) == (409, "schedule_name_taken")


async def test_the_daily_schedule_says_which_variable_to_set(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    daily = await define(sessions)
    path, now = f"/schedules/{daily.id}", {"If-Match": "*"}

    editing = await api.patch(path, json={"cron": "0 1 * * *"}, headers=now)
    removing = await api.delete(path, headers=now)
    pausing = await api.post(f"{path}/pause", json={"note": "freeze"})

    assert (editing.status_code, removing.status_code) == (409, 409)
    assert "DAYBOOK_DAILY_CRON" in editing.json()["detail"]
    assert (pausing.status_code, pausing.json()["note"]) == (200, "freeze")


async def test_lists_go_page_by_page(api: httpx.AsyncClient) -> None:
    made = [await make(api, name=f"s{n}") for n in range(3)]
    await api.post(f"/schedules/{made[1]['id']}/pause")

    first = (await api.get("/schedules", params={"limit": 2})).json()
    second = (await api.get("/schedules", params={"limit": 2, "after": first["next"]})).json()
    paused = (await api.get("/schedules", params={"enabled": False})).json()

    names = [[schedule["name"] for schedule in page["schedules"]] for page in (first, second)]
    assert (names, second["next"]) == ([["s0", "s1"], ["s2"]], None)
    assert [schedule["name"] for schedule in paused["schedules"]] == ["s1"]


async def test_pausing_resuming_and_triggering(api: httpx.AsyncClient) -> None:
    made = await make(api)
    path = f"/schedules/{made['id']}"

    early = await api.post(f"{path}/resume")
    paused = await api.post(f"{path}/pause", json={"note": "freeze"})
    triggered = await api.post(f"{path}/trigger")
    resumed = await api.post(f"{path}/resume", json={"mode": "catchup"})

    assert (early.status_code, early.json()["code"]) == (409, "schedule_not_paused")
    assert (paused.json()["enabled"], paused.json()["version"]) == (False, 2)
    assert (resumed.json()["enabled"], resumed.json()["note"]) == (True, None)
    run = triggered.json()
    assert (triggered.status_code, run["state"], run["joined"]) == (202, "pending", False)
    assert triggered.headers["location"] == f"/report/runs/{run['id']}"
    assert run["schedule_id"] == made["id"]


async def test_pausing_what_is_paused_keeps_the_note_unless_there_is_a_new_one(
    api: httpx.AsyncClient,
) -> None:
    path = f"/schedules/{(await make(api))['id']}/pause"
    await api.post(path, json={"note": "freeze"})

    bodies: list[dict[str, Any] | None] = [None, {}, {"note": None}, {"note": "thaw"}, {"note": ""}]
    answers = [(await api.post(path, json=body)).json()["note"] for body in bodies]

    assert answers == ["freeze", "freeze", "freeze", "thaw", ""]


async def test_a_note_that_cannot_be_stored_is_refused_in_words(api: httpx.AsyncClient) -> None:
    path = f"/schedules/{(await make(api))['id']}/pause"

    noted = await api.post(path, json={"note": "fre\x00eze"})
    listed = await api.get("/schedules/taskiq", params={"after": "a\x00"})

    for answer, pointer in ((noted, "#/note"), (listed, "#/after")):
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["pointer"]) == (422, pointer)
        assert error["detail"] == "contains a NUL character (U+0000), which cannot be stored"


async def test_a_preview_marks_gaps_and_folds(api: httpx.AsyncClient) -> None:
    asked = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "count": "2"}

    spring, autumn = [
        (await api.get("/schedules/preview", params={**asked, "after": after})).json()["fires"]
        for after in ("2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z")
    ]

    assert spring == [
        {
            "at": "2026-03-29T01:00:00Z",
            "local": "2026-03-29T03:00:00+02:00",
            "report_date": "2026-03-28",
            "mark": "gap",
        },
        {
            "at": "2026-03-30T00:30:00Z",
            "local": "2026-03-30T02:30:00+02:00",
            "report_date": "2026-03-29",
            "mark": None,
        },
    ]
    assert [(fire["at"], fire["mark"]) for fire in autumn] == [
        ("2026-10-25T00:30:00Z", "fold"),
        ("2026-10-26T01:30:00Z", None),
    ]


async def test_a_preview_of_what_cannot_be_names_the_parameter(api: httpx.AsyncClient) -> None:
    answer = await api.get("/schedules/preview", params={"cron": "0 24 * * *"})

    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (422, "#/cron")
    assert error["detail"] == "hour: 24 is not 0-23 (position 3)"


@pytest.mark.parametrize("after", ["0001-01-01T00:00:00Z", "9999-12-31T23:00:00Z"])
async def test_a_preview_from_outside_the_calendar_is_refused(
    api: httpx.AsyncClient, after: str
) -> None:
    asked = {"cron": "0 0 * * *", "timezone": "America/New_York", "after": after}

    answer = await api.get("/schedules/preview", params=asked)

    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (422, "#/after")


async def test_a_preview_looks_a_century_ahead_and_says_so(api: httpx.AsyncClient) -> None:
    asked = {"cron": "0 0 * FEB MON#5", "count": "1000", "after": "2026-03-02T00:00:00Z"}

    answer = await api.get("/schedules/preview", params=asked)

    assert answer.status_code == 200
    assert [fire["report_date"] for fire in answer.json()["fires"]] == [
        "2044-02-28",
        "2072-02-28",
        "2112-02-28",
    ]
    assert answer.json()["until"] == "2126-03-03T00:00:00Z"


async def test_other_requests_are_answered_while_a_preview_is_computed(
    api: httpx.AsyncClient,
) -> None:
    loop, gate = asyncio.get_running_loop(), threading.Event()
    # More than there are threads, so that the preview has to wait for one.
    busy = [loop.run_in_executor(None, gate.wait) for _ in range(40)]
    asked = {"cron": "0 0 * FEB MON#5", "count": "1000", "after": "2026-03-02T00:00:00Z"}
    try:
        previewing = asyncio.create_task(api.get("/schedules/preview", params=asked))
        answers = []
        for _ in range(20):
            await asyncio.sleep(0)  # A request that waits for nothing lets no other begin.
            answers.append(await api.get("/healthz"))
        assert not previewing.done()
    finally:
        gate.set()
        await asyncio.gather(*busy)

    assert {answer.status_code for answer in answers} == {200}
    assert (await previewing).status_code == 200


async def test_the_ledger_says_what_became_of_each_fire(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    schedule = await add(sessions, timezone="Asia/Tokyo", catchup_window=DAY)
    await materialise(sessions, now=MIDNIGHT + 3 * DAY)
    path = f"/schedules/{schedule.id}/fires"

    page = (await api.get(path, params={"limit": 2})).json()
    rest = (await api.get(path, params={"limit": 2, "before": page["next"]})).json()
    tuesday = (await api.get(path, params={"from": "2026-03-03", "to": "2026-03-03"})).json()
    missed = (await api.get(path, params={"outcome": "missed"})).json()

    outcomes = [fire["outcome"] for fire in page["fires"] + rest["fires"]]
    assert outcomes == ["pending", "missed: outside window", "missed: outside window"]
    (fire,) = tuesday["fires"]
    assert (fire["local"], fire["report_date"]) == ("2026-03-03T00:00:00+09:00", "2026-03-02")
    assert "outside the window" in fire["reason"]
    assert len(missed["fires"]) == 2


async def test_the_ledger_says_why_there_is_nothing(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    schedule = await add(sessions, cron="0 9 * * MON-FRI")
    path = f"/schedules/{schedule.id}/fires"

    async def note(day: str) -> str:
        answer = await api.get(path, params={"from": day, "to": day})
        assert answer.json()["fires"] == []
        return str(answer.json()["note"])

    assert "No fire of '0 9 * * MON-FRI' in UTC was due in the range" in await note("2026-03-07")
    assert "was last defined at 2026-03-01" in await note("2026-02-27")
    assert "no scheduler has recorded them" in await note("2026-03-03")
    assert "in the future" in await note("2999-03-07")
    await change(sessions, "added", next_fire_at=datetime.now(UTC) + DAY)
    assert "DAYBOOK_LEDGER_DAYS" in await note("2026-03-03")


async def test_a_run_is_cancelled_and_retried(api: httpx.AsyncClient) -> None:
    made = await make(api)
    run = (await api.post(f"/schedules/{made['id']}/trigger")).json()
    path = f"/report/runs/{run['id']}"

    cancelled = await api.post(f"{path}/cancel", json={"reason": "freeze"})
    again = await api.post(f"{path}/cancel")
    retried = await api.post(f"{path}/retry")
    twice = await api.post(f"{path}/retry")

    assert (cancelled.json()["state"], cancelled.json()["reason"]) == ("cancelled", "freeze")
    assert (again.status_code, again.json()["code"]) == (409, "run_ended")
    assert (retried.status_code, retried.json()["state"]) == (202, "pending")
    assert (twice.status_code, twice.json()["code"]) == (409, "run_not_ended")


async def test_an_unknown_schedule_is_not_found_anywhere(api: httpx.AsyncClient) -> None:
    now = {"If-Match": "*"}
    answers = [
        await api.get("/schedules/17"),
        await api.get("/schedules/17/fires"),
        await api.put("/schedules/17", json=WORKDAYS, headers=now),
        await api.delete("/schedules/17", headers=now),
        *[await api.post(f"/schedules/17/{what}") for what in ("pause", "resume", "trigger")],
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert (await api.get("/schedules/seventeen")).status_code == 422


async def test_what_cannot_be_fired_of_taskiq_is_listed_with_its_problem(
    api: httpx.AsyncClient, sessions: Sessions
) -> None:
    good = (
        b'{"task_name": "reports.build", "labels": {}, "args": [], "kwargs": {}, "cron": "@daily"}'
    )
    async with sessions.begin() as session:
        await taskiq_sync.sync(
            session,
            {"a": good, "b": b"{", "c": good},
            redis_epoch="m",
            timezone="UTC",
            now=MIDNIGHT,
        )

    everything = (await api.get("/schedules/taskiq?limit=2")).json()
    rest = (await api.get(f"/schedules/taskiq?after={everything['next']}")).json()
    broken = (await api.get("/schedules/taskiq?broken=true")).json()["entries"]

    assert [entry["id"] for entry in everything["entries"] + rest["entries"]] == ["a", "b", "c"]
    assert rest["next"] is None
    assert [(entry["id"], entry["schedule_id"]) for entry in broken] == [("b", None)]
    assert "cannot be parsed" in broken[0]["problem"]
    (schedule, _) = (await api.get("/schedules")).json()["schedules"]
    assert (schedule["name"], schedule["origin"]) == ("a", "taskiq")
