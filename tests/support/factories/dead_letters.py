"""Factories of dead letters: batches consumed from deliveries, and their retries."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import uuid4

from daybook_domain.intake import dead_letters, service
from daybook_domain.intake.dead_letters import RetryPolicy
from daybook_domain.intake.parsing import Delivery
from daybook_domain.intake.service import Batch, MessageOutcome
from daybook_platform.postgres.sessions import Sessions

RETRY_IMMEDIATELY = RetryPolicy(first=timedelta(0), longest=timedelta(0))
"""A policy under which waiting dead letters are due immediately."""


async def consume_batch(
    sessions: Sessions, *deliveries: Delivery, retry_policy: RetryPolicy = RETRY_IMMEDIATELY
) -> list[MessageOutcome]:
    """Consume a batch as a new consumer, and return the outcome of each delivery."""
    async with sessions.begin() as session:
        results = await service.consume_batch(
            session,
            Batch(uuid4(), 1, deliveries),
            retry_policy=retry_policy,
            still_valid=lambda: True,
        )
    assert results is not None
    return [each.outcome for each in results]


async def retry_due_dead_letters(
    sessions: Sessions, *, retry_policy: RetryPolicy = RETRY_IMMEDIATELY
) -> Sequence[MessageOutcome]:
    """Retry all due dead letters, and return the outcome of each."""
    async with sessions.begin() as session:
        ids = await dead_letters.claim_due(session, limit=100)
    async with sessions.begin() as session:
        return [
            each.outcome
            for each in await service.retry_dead_letters(session, ids, retry_policy=retry_policy)
        ]
