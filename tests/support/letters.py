"""How does a test get dead letters, and have them tried again?"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

from daybook_domain.db import Sessions
from daybook_domain.intake import letters, service
from daybook_domain.intake.deliveries import Delivery
from daybook_domain.intake.letters import Patience
from daybook_domain.intake.service import Batch, Outcome

AT_ONCE = Patience(first=timedelta(0), longest=timedelta(0))
"""Letters that wait are due at once."""


async def take(
    sessions: Sessions, *deliveries: Delivery, patience: Patience = AT_ONCE
) -> list[Outcome]:
    """Take a batch in, as a consumer that was never seen before."""
    async with sessions.begin() as session:
        settled = await service.take(
            session, Batch(uuid4(), 1, deliveries), patience=patience, ours=lambda: True
        )
    assert settled is not None
    return [each.outcome for each in settled]


async def retry(sessions: Sessions, *, patience: Patience = AT_ONCE) -> Sequence[Outcome]:
    """Try all letters again that are due."""
    async with sessions.begin() as session:
        ids = await letters.take_up(session, limit=100)
    async with sessions.begin() as session:
        return [each.outcome for each in await service.retry(session, ids, patience=patience)]
