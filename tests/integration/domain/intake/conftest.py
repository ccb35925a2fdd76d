"""Fixtures of the intake tests: a shop, and functions that consume batches and retry."""

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from daybook_domain.intake import service
from daybook_domain.intake.dead_letters import RetryPolicy
from daybook_domain.intake.parsing import Delivery
from daybook_domain.intake.service import Batch, MessageOutcome, MessageResult
from daybook_platform.postgres.sessions import Sessions
from tests.support.factories.dead_letters import RETRY_IMMEDIATELY, retry_due_dead_letters
from tests.support.factories.shop import reset_shop

ConsumeBatch = Callable[..., Coroutine[Any, Any, list[MessageOutcome] | None]]
Retry = Callable[..., Coroutine[Any, Any, Sequence[MessageOutcome]]]


@pytest.fixture
async def shop(engine: AsyncEngine) -> None:
    """Create user 1, address 1 and product 1 with a stock of 1000."""
    await reset_shop(engine)


@pytest.fixture
def consume(sessions: Sessions, shop: None) -> ConsumeBatch:
    """Return a function that commits a batch, by default as a new consumer."""

    async def consume(
        *deliveries: Delivery,
        consumer: UUID | None = None,
        number: int = 1,
        retry_policy: RetryPolicy = RETRY_IMMEDIATELY,
    ) -> list[MessageOutcome] | None:
        batch = Batch(consumer or uuid4(), number, deliveries)
        async with sessions.begin() as session:
            results = await service.consume_batch(
                session, batch, retry_policy=retry_policy, still_valid=lambda: True
            )
        return None if results is None else _outcomes(results)

    return consume


@pytest.fixture
def retry(sessions: Sessions) -> Retry:
    """Return a function that retries all due dead letters."""

    return partial(retry_due_dead_letters, sessions)


def _outcomes(results: Sequence[MessageResult]) -> list[MessageOutcome]:
    return [each.outcome for each in results]
