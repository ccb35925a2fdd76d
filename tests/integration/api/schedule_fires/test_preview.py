"""Integration tests of GET /schedules/preview."""

import asyncio
import threading

import httpx
import pytest


async def test_a_preview_marks_gaps_and_folds(api: httpx.AsyncClient) -> None:
    query = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "count": "2"}

    spring, autumn = [
        (await api.get("/schedules/preview", params={**query, "after": after})).json()["fires"]
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


async def test_an_invalid_cron_expression_is_rejected_by_parameter(api: httpx.AsyncClient) -> None:
    response = await api.get("/schedules/preview", params={"cron": "0 24 * * *"})

    (error,) = response.json()["errors"]
    assert (response.status_code, error["pointer"]) == (422, "#/cron")
    assert error["detail"] == "hour: 24 is not 0-23 (position 3)"


@pytest.mark.parametrize("after", ["0001-01-01T00:00:00Z", "9999-12-31T23:00:00Z"])
async def test_a_preview_outside_the_supported_dates_is_rejected(
    api: httpx.AsyncClient, after: str
) -> None:
    query = {"cron": "0 0 * * *", "timezone": "America/New_York", "after": after}

    response = await api.get("/schedules/preview", params=query)

    (error,) = response.json()["errors"]
    assert (response.status_code, error["pointer"]) == (422, "#/after")


async def test_a_preview_ends_after_a_century(api: httpx.AsyncClient) -> None:
    query = {"cron": "0 0 * FEB MON#5", "count": "1000", "after": "2026-03-02T00:00:00Z"}

    response = await api.get("/schedules/preview", params=query)

    assert response.status_code == 200
    assert [fire["report_date"] for fire in response.json()["fires"]] == [
        "2044-02-28",
        "2072-02-28",
        "2112-02-28",
    ]
    assert response.json()["until"] == "2126-03-03T00:00:00Z"


async def test_a_preview_does_not_block_other_requests(
    api: httpx.AsyncClient,
) -> None:
    loop, gate = asyncio.get_running_loop(), threading.Event()
    # More than the number of threads, so that the preview has to wait for one.
    busy = [loop.run_in_executor(None, gate.wait) for _ in range(40)]
    query = {"cron": "0 0 * FEB MON#5", "count": "1000", "after": "2026-03-02T00:00:00Z"}
    try:
        previewing = asyncio.create_task(api.get("/schedules/preview", params=query))
        responses = []
        for _ in range(20):
            await asyncio.sleep(0)  # A request that never suspends lets no other start.
            responses.append(await api.get("/healthz"))
        assert not previewing.done()
    finally:
        gate.set()
        await asyncio.gather(*busy)

    assert {response.status_code for response in responses} == {200}
    assert (await previewing).status_code == 200
