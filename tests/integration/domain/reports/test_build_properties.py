"""Properties of builds: for any orders, zone and changes, a report is the sum of its day."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from daybook_domain.reports.business_day import BusinessDay, business_day, local_date
from tests.support.factories.reports import ReportLine, build_report, list_report_lines
from tests.support.factories.shop import create_order, create_order_item, delete_order, reset_shop

TICK = timedelta(microseconds=1)

# In none of these zones the evening occurs twice, so the local date is the business day.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # Skips midnight in March and repeats it in November.
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # DST of half an hour.
    "Pacific/Kiritimati",
    "Pacific/Apia",  # Skipped 30 December 2011.
]
CHANGE_DATES = [
    date(2026, 3, 8),
    date(2026, 3, 29),
    date(2026, 4, 5),
    date(2026, 10, 25),
    date(2026, 11, 1),
    date(2011, 12, 29),
    date(2011, 12, 30),
    date(2011, 12, 31),
]

quantities = st.lists(st.integers(1, 2**31 - 1), max_size=4)
small_ids = st.integers(1, 60)
large_ids = st.integers(1, 2**62)


@dataclass
class OrderModel:
    """The expected orders, and the reports that follow from them."""

    instants: dict[int, datetime] = field(default_factory=dict)
    quantities: dict[int, list[int]] = field(default_factory=dict)

    def report(self, day: date, *, timezone: str) -> dict[int, int]:
        return {
            order_id: sum(self.quantities[order_id])
            for order_id, instant in self.instants.items()
            if local_date(instant, timezone=timezone) == day
        }


@dataclass(frozen=True)
class Change:
    """A change of the orders between two builds."""

    kind: str
    order_id: int
    place: int
    offset: timedelta
    quantities: Sequence[int]


changes = st.builds(
    Change,
    kind=st.sampled_from(["add", "add", "delete", "add item", "delete items", "move"]),
    order_id=small_ids | large_ids,
    place=st.integers(0, 5),
    offset=st.timedeltas(timedelta(hours=-3), timedelta(hours=30)),
    quantities=quantities,
)


def _instant(day: BusinessDay, change: Change) -> datetime:
    """Return an instant in or near the day, often exactly at its start or end."""
    edges = [day.starts_at - TICK, day.starts_at, day.ends_at - TICK, day.ends_at]
    return edges[change.place] if change.place < len(edges) else day.starts_at + change.offset


async def _apply(
    connection: AsyncConnection, model: OrderModel, change: Change, *, day: BusinessDay
) -> None:
    existing = sorted(model.instants)
    chosen = existing[change.order_id % len(existing)] if existing else None
    if change.kind == "add" and change.order_id not in model.instants:
        instant = _instant(day, change)
        await create_order(
            connection,
            created_at=instant,
            quantities=change.quantities,
            order_id=change.order_id,
        )
        model.instants[change.order_id] = instant
        model.quantities[change.order_id] = list(change.quantities)
    elif chosen is None:
        return
    elif change.kind == "delete":
        await delete_order(connection, chosen)
        del model.instants[chosen], model.quantities[chosen]
    elif change.kind == "add item":
        await create_order_item(connection, order_id=chosen, quantity=change.place + 1)
        model.quantities[chosen].append(change.place + 1)
    elif change.kind == "delete items":
        await connection.execute(
            text("DELETE FROM order_items WHERE order_id = :id"), {"id": chosen}
        )
        model.quantities[chosen] = []
    elif change.kind == "move":
        await connection.execute(text("SET LOCAL daybook.delete_reported_orders = 'rebuild'"))
        instant = _instant(day, change)
        await connection.execute(
            text("UPDATE orders SET created_at = :at WHERE id = :id"),
            {"at": instant, "id": chosen},
        )
        model.instants[chosen] = instant


async def _apply_all(
    engine: AsyncEngine, model: OrderModel, order_changes: Sequence[Change], *, day: BusinessDay
) -> None:
    async with engine.begin() as connection:
        for change in order_changes:
            await _apply(connection, model, change, day=day)


def _sums(stored: Sequence[ReportLine]) -> dict[int, int]:
    return {line.order_id: line.count_product for line in stored}


@settings(deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    on=st.sampled_from(CHANGE_DATES) | st.dates(date(2000, 1, 2), date(2037, 12, 30)),
    order_changes=st.lists(changes, max_size=25),
)
async def test_a_report_is_the_sum_of_the_orders_of_its_day(
    engine: AsyncEngine, zone: str, on: date, order_changes: list[Change]
) -> None:
    await reset_shop(engine)
    model, day = OrderModel(), business_day(on, timezone=zone)
    await _apply_all(engine, model, order_changes, day=day)

    built = await build_report(engine, day)

    stored = await list_report_lines(engine, on)
    expected = model.report(on, timezone=zone)
    assert _sums(stored) == expected
    assert [line.order_id for line in sorted(stored, key=lambda line: line.id)] == sorted(expected)
    assert built.orders_count == built.added == len(expected)
    assert built.products_count == sum(expected.values())
    assert (built.digest == "0" * 16) == (not expected)


@settings(deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    on=st.sampled_from(CHANGE_DATES),
    rounds=st.lists(st.lists(changes, max_size=8), min_size=2, max_size=4),
)
async def test_a_rebuild_changes_only_the_rows_whose_orders_changed(
    engine: AsyncEngine, zone: str, on: date, rounds: list[list[Change]]
) -> None:
    await reset_shop(engine)
    model, day = OrderModel(), business_day(on, timezone=zone)
    before: dict[int, ReportLine] = {}
    revision = 0
    for order_changes in rounds:
        await _apply_all(engine, model, order_changes, day=day)

        built = await build_report(engine, day)

        stored = {line.order_id: line for line in await list_report_lines(engine, on)}
        expected = model.report(on, timezone=zone)
        assert _sums(list(stored.values())) == expected
        _assert_only_differences_were_written(before, stored)
        added, removed = stored.keys() - before.keys(), before.keys() - stored.keys()
        changed = {
            order_id
            for order_id in stored.keys() & before.keys()
            if stored[order_id].count_product != before[order_id].count_product
        }
        assert (built.added, built.changed, built.removed) == (
            len(added),
            len(changed),
            len(removed),
        )
        assert built.revision == revision + (1 if built.has_changes or not revision else 0)
        before, revision = stored, built.revision

    again = await build_report(engine, day)
    assert {line.order_id: line for line in await list_report_lines(engine, on)} == before
    assert (again.revision, again.has_changes) == (revision, False)

    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM reports"))
    first_build = await build_report(engine, day)
    assert first_build.digest == again.digest
    assert first_build.products_count == again.products_count


def _assert_only_differences_were_written(
    before: dict[int, ReportLine], after: dict[int, ReportLine]
) -> None:
    for order_id in before.keys() & after.keys():
        old, new = before[order_id], after[order_id]
        if old.count_product == new.count_product:
            assert new == old
        else:
            assert (new.id, new.created_at) == (old.id, old.created_at)
