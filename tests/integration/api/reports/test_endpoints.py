"""Integration tests of GET /report."""

import csv
import io
import json
from datetime import UTC, date, datetime

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_api.main import build_app
from daybook_api.settings import ApiSettings
from daybook_domain.reports.business_day import local_date
from daybook_domain.reports.rendering import SMALL_ROWS
from tests.integration.api.conftest import MakeDay, serve

DAY = "2026-03-01"


async def test_a_report_is_an_array_of_its_rows_ordered_by_order_id(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day(DAY, rows=12)
    response = await api.get("/report", params={"date": DAY})
    rows = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert [row["order_id"] for row in rows] == list(range(1, 13))
    assert [*rows[0]] == ["id", "report_at", "order_id", "count_product", "created_at"]
    assert (rows[6]["report_at"], rows[6]["count_product"]) == (DAY, 2)
    assert datetime.fromisoformat(rows[0]["created_at"]) == datetime(
        2026, 3, 2, 0, 0, 1, 500_000, tzinfo=UTC
    )


@pytest.mark.parametrize("rows", [12, SMALL_ROWS + 500], ids=["small", "streamed"])
async def test_rows_are_ordered_by_order_id_however_they_are_stored(
    api: httpx.AsyncClient, make_day: MakeDay, engine: AsyncEngine, rows: int
) -> None:
    await make_day(DAY, rows=rows)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM reports"))
        await connection.execute(
            text(
                "INSERT INTO reports (report_at, order_id, count_product)"
                " SELECT CAST(:day AS date), n, 1 FROM generate_series(:rows, 1, -1) AS n"
            ),
            {"day": date.fromisoformat(DAY), "rows": rows},
        )
        # With statistics, Postgres reads so small a table from its start and not by the index.
        await connection.execute(text("ANALYZE reports"))
        stored = await connection.execute(text("SELECT order_id FROM reports"))
        assert next(iter(stored.scalars())) == rows

    for name in ("json", "ndjson", "csv"):
        response = await api.get("/report", params={"date": DAY, "format": name})
        if name == "json":
            orders = [row["order_id"] for row in response.json()]
        elif name == "ndjson":
            orders = [json.loads(line)["order_id"] for line in response.text.splitlines()]
        else:
            orders = [int(row["order_id"]) for row in csv.DictReader(io.StringIO(response.text))]
        assert orders == list(range(1, rows + 1))


async def test_reports_with_one_row_and_with_none_are_arrays(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day(DAY, rows=1)
    await make_day("2026-03-02", rows=0)
    assert len((await api.get("/report", params={"date": DAY})).json()) == 1
    empty = await api.get("/report", params={"date": "2026-03-02"})
    assert (empty.json(), empty.headers["daybook-report-state"]) == ([], "sealed")


async def test_an_absent_report_is_an_empty_array_with_state_absent(api: httpx.AsyncClient) -> None:
    response = await api.get("/report", params={"date": DAY})
    assert (response.status_code, response.json()) == (200, [])
    assert response.headers["daybook-report-state"] == "absent"
    assert response.headers["daybook-report-revision"] == "0"


async def test_a_provisional_report_has_state_provisional(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day(DAY, sealed=False, revision=4)
    response = await api.get("/report", params={"date": DAY})
    assert response.headers["daybook-report-state"] == "provisional"
    assert response.headers["daybook-report-revision"] == "4"
    assert response.headers["cache-control"] == "no-cache"


async def test_trailing_slash_and_parameter_alias_return_the_same_report(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day(DAY)
    plain = await api.get("/report", params={"date": DAY})
    for path in (
        f"/report/?date={DAY}",
        f"/report?report_date={DAY}",
        f"/report/?report_date={DAY}&date={DAY}",
    ):
        response = await api.get(path, follow_redirects=False)
        assert (response.status_code, response.content) == (200, plain.content)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
async def test_the_default_date_is_the_current_business_day(
    postgres_url: str, clean: None, zone: str
) -> None:
    settings = ApiSettings.model_validate({"database_url": postgres_url, "timezone": zone})
    async with serve(build_app(settings)) as client:
        before = local_date(datetime.now(UTC), timezone=zone)
        shown = (await client.get("/report")).headers["daybook-report-date"]
        after = local_date(datetime.now(UTC), timezone=zone)
    assert before <= date.fromisoformat(shown) <= after


async def test_head_returns_the_headers_of_get_without_a_body(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day(DAY)
    for path in ("/report", "/report/"):
        got = await api.get(path, params={"date": DAY})
        head = await api.head(path, params={"date": DAY})
        assert (head.status_code, head.content) == (200, b"")
        assert _headers_without_id(head) == _headers_without_id(got)
        assert "content-length" not in head.headers


def _headers_without_id(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name != "x-request-id"}


async def test_csv_and_ndjson_contain_the_same_rows(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day(DAY)
    rows = (await api.get("/report", params={"date": DAY})).json()
    lines = await api.get("/report", params={"date": DAY, "format": "ndjson"})
    table = await api.get("/report", params={"date": DAY}, headers={"Accept": "text/csv"})
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in lines.text.splitlines()] == rows
    assert table.headers["content-type"].startswith("text/csv")
    assert list(csv.DictReader(io.StringIO(table.text))) == [
        {name: str(value) for name, value in row.items()} for row in rows
    ]


async def test_an_absent_report_is_a_header_line_as_csv_and_empty_as_ndjson(
    api: httpx.AsyncClient,
) -> None:
    table = await api.get("/report", params={"date": DAY, "format": "csv"})
    lines = await api.get("/report", params={"date": DAY, "format": "ndjson"})
    assert table.text == "id,report_at,order_id,count_product,created_at\n"
    assert lines.content == b""


@pytest.mark.parametrize(
    ("params", "accept"),
    [({"format": "xml"}, "*/*"), ({"format": ""}, "*/*"), ({}, "text/html, application/xml")],
)
async def test_an_unknown_format_is_rejected_with_a_list_of_formats(
    api: httpx.AsyncClient, params: dict[str, str], accept: str
) -> None:
    response = await api.get("/report", params={"date": DAY} | params, headers={"Accept": accept})
    assert response.status_code == 406
    assert response.json()["code"] == "not_acceptable"
    for offered in ("application/json", "application/x-ndjson", "text/csv"):
        assert offered in response.json()["detail"]


async def test_a_matching_etag_returns_304_without_a_body(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    await make_day(DAY)
    tag = (await api.get("/report", params={"date": DAY})).headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = await api.get("/report", params={"date": DAY}, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert again.headers["daybook-report-state"] == "sealed"
    lines = [("If-None-Match", '"of,another"'), ("If-None-Match", tag)]
    assert (await api.get("/report", params={"date": DAY}, headers=lines)).status_code == 304
    other = await api.get("/report", params={"date": DAY}, headers={"If-None-Match": '"other"'})
    assert (other.status_code, len(other.json())) == (200, 3)


async def test_the_etag_depends_on_format_revision_and_build(
    api: httpx.AsyncClient, make_day: MakeDay
) -> None:
    tags = set()
    for revision in (1, 2, 2):  # The second 2 is a new build after a restore.
        await make_day(DAY, revision=revision)
        for form in ("json", "csv", "ndjson"):
            response = await api.get("/report", params={"date": DAY, "format": form})
            tags.add(response.headers["etag"])
    assert len(tags) == 9
    assert all(tag.startswith('"') for tag in tags)


async def test_rows_and_revision_come_from_the_same_snapshot(
    api: httpx.AsyncClient, make_day: MakeDay, engine: AsyncEngine
) -> None:
    await make_day(DAY, rows=10)
    async with engine.connect() as connection:
        transaction = await connection.begin()
        await connection.execute(text("UPDATE reports SET count_product = 99"))
        await connection.execute(text("UPDATE report_days SET revision = 2"))
        before = await api.get("/report", params={"date": DAY})
        await transaction.commit()
    after = await api.get("/report", params={"date": DAY})
    seen = [
        (response.headers["daybook-report-revision"], response.json()[0]["count_product"])
        for response in (before, after)
    ]
    assert seen == [("1", 1), ("2", 99)]


@pytest.mark.parametrize(
    ("query", "pointer", "hint"),
    [
        (
            "date=2026-13-01",
            "#/date",
            "2026-13-01 is not a calendar date; expected YYYY-MM-DD, such as 2",
        ),
        ("date=2026-02-29", "#/date", "2026-02-29 is not a calendar date"),
        ("date=20260301", "#/date", "expected YYYY-MM-DD"),
        ("date=2026-W09-1", "#/date", "expected YYYY-MM-DD"),
        ("date=", "#/date", "is empty"),
        ("report_date=", "#/report_date", "is empty"),
        ("date=0001-01-01", "#/date", "out of range"),
        ("date=9999-12-31", "#/date", "out of range"),
        ("date=2026-03-01%00", "#/date", "is not a calendar date"),
        ("date=2026-03-01&report_date=2026-03-02", "#/date", "more than one date"),
        ("date=2026-03-01&date=2026-03-02", "#/date", "more than one date"),
        ("dat=2026-03-01", "#/dat", "is not a known field or parameter"),
        ("limit=5", "#/limit", "is not a known field or parameter"),
    ],
)
async def test_invalid_parameters_are_rejected_with_a_hint(
    api: httpx.AsyncClient, query: str, pointer: str, hint: str
) -> None:
    response = await api.get(f"/report?{query}")
    problem = response.json()
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert hint in problem["detail"]
    assert (problem["errors"][0]["location"], problem["errors"][0]["pointer"]) == ("query", pointer)
    assert problem["request_id"] == response.headers["x-request-id"]
