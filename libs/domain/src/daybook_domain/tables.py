"""The complete metadata of all tables: every feature's models are imported here."""

from daybook_domain.backfills import models as backfills
from daybook_domain.catalog import models as catalog
from daybook_domain.idempotency import models as idempotency
from daybook_domain.intake import models as intake
from daybook_domain.orders import models as orders
from daybook_domain.reports import models as reports
from daybook_domain.runs import models as runs
from daybook_domain.schedules import models as schedules
from daybook_domain.types import Table

metadata = Table.metadata

__all__ = [
    "backfills",
    "catalog",
    "idempotency",
    "intake",
    "metadata",
    "orders",
    "reports",
    "runs",
    "schedules",
]
