"""The time zone of business days, as stored in the database.

Services compare DAYBOOK_TIMEZONE with it, so that two with different values cannot build different
days for one date. See docs/adr/0017-business-timezone-in-the-database.md.
"""

from sqlalchemy import text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from daybook_domain.reports.errors import TimezoneMismatch
from daybook_domain.reports.models import BusinessTimezone

CURRENT_FOR_SHARE = (
    select(BusinessTimezone.timezone)
    # The condition allows the planner to use the index, as a scheduler's transaction prefers.
    .where(col(BusinessTimezone.is_only))
    .with_for_update(read=True)
    .scalar_subquery()
)
"""The zone, locked until the transaction ends, so that a change waits for what it wrote.

For the statement that inserts a run: a change then finds every run that was requested before it.
"""

_FIND = text("SELECT timezone FROM business_timezone")


def require_equal(timezone: str, *, expected: str | None) -> None:
    """Raise `TimezoneMismatch` if `timezone` is not `expected`; None: not recorded yet."""
    if expected is not None and timezone != expected:
        raise TimezoneMismatch(
            f"DAYBOOK_TIMEZONE is {timezone}, but business days are in {expected}: set"
            f" DAYBOOK_TIMEZONE={expected}, or run `daybook timezone change {timezone}` to rebuild"
            " the days in the other zone"
        )


async def find(connection: AsyncConnection | AsyncSession) -> str | None:
    """Return the zone of business days; None before the first service has started."""
    found: str | None = (await connection.execute(_FIND)).scalar_one_or_none()
    return found


async def require_current(session: AsyncSession, timezone: str) -> None:
    """Raise `TimezoneMismatch` unless business days are in `timezone`.

    The zone does not change until the transaction ends.
    """
    stored = (await session.execute(select(CURRENT_FOR_SHARE))).scalar_one_or_none()
    require_equal(timezone, expected=stored)


async def confirm(session: AsyncSession, timezone: str) -> None:
    """Record `timezone` as the zone of business days if none is; otherwise compare with it.

    Raises `TimezoneMismatch`.
    """
    stored = await find(session)
    if stored is None:
        await session.execute(
            insert(BusinessTimezone)
            .values(is_only=True, timezone=timezone)
            .on_conflict_do_nothing()
        )
        # Another service may have recorded its own concurrently.
        stored = await find(session)
    require_equal(timezone, expected=stored)
