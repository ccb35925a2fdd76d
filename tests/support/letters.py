"""How does a test get dead letters, and have them tried again?"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

from daybook_domain.intake import dead_letters, service
from daybook_domain.intake.dead_letters import RetryPolicy
from daybook_domain.intake.parsing import Delivery
from daybook_domain.intake.service import Batch, MessageOutcome
from daybook_platform.postgres.engine import Sessions

AT_ONCE = RetryPolicy(first=timedelta(0), longest=timedelta(0))
"""Letters that wait are due at once."""


async def take(
    sessions: Sessions, *deliveries: Delivery, patience: RetryPolicy = AT_ONCE
) -> list[MessageOutcome]:
    """Take a batch in, as a consumer that was never seen before."""
    async with sessions.begin() as session:
        settled = await service.consume_batch(
            session, Batch(uuid4(), 1, deliveries), retry_policy=patience, still_valid=lambda: True
        )
    assert settled is not None
    return [each.outcome for each in settled]


async def retry(sessions: Sessions, *, patience: RetryPolicy = AT_ONCE) -> Sequence[MessageOutcome]:
    """Try all letters again that are due."""
    async with sessions.begin() as session:
        ids = await dead_letters.claim_due(session, limit=100)
    async with sessions.begin() as session:
        return [
            each.outcome
            for each in await service.retry_dead_letters(session, ids, retry_policy=patience)
        ]
