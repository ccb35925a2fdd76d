"""Registry of the advisory locks and the order in which locks are taken.

Locks of the two-key form are `(class, key)`, all others are a single key. Every advisory lock of
Daybook is named here, so that no number is used twice. docs/architecture.md lists the order of
row locks that belongs to it.
"""

from datetime import date

MIGRATION = 7200
"""Single key, session. Exclusive: a migration, so that one runs at a time."""

REPORT_DATE = 7201
"""Class, key `date_key(report_date)`, transaction.

Exclusive: a build of that date. Shared: a transaction that changes or deletes an order that the
report of that date may contain (also in the triggers of migration 0002).
"""

TASKIQ_SYNC = 7206
"""Single key, transaction. Exclusive: the scheduler that synchronizes TaskIQ's schedules."""

INTAKE_BATCH = 7210
"""Class, key 0, transaction.

Shared: a batch of intake messages. Exclusive: a batch that must see the receipts of all batches
that are committing concurrently.
"""

_DATE_EPOCH = date(2000, 1, 1)


def date_key(day: date) -> int:
    """Return the second key of `REPORT_DATE`: days since 2000-01-01."""
    return (day - _DATE_EPOCH).days
