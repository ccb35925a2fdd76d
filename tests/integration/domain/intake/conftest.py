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
from daybook_platform.postgres.engine import Sessions
from tests.support import letters
from tests.support.letters import AT_ONCE
from tests.support.shop import open_shop

Take = Callable[..., Coroutine[Any, Any, list[MessageOutcome] | None]]
Retry = Callable[..., Coroutine[Any, Any, Sequence[MessageOutcome]]]


@pytest.fixture
async def shop(engine: AsyncEngine) -> None:
    """Create user 1, address 1 and product 1 with a stock of 1000."""
    await open_shop(engine)


@pytest.fixture
def take(sessions: Sessions, shop: None) -> Take:
    """Return a function that commits a batch, by default as a new consumer."""

    async def take(
        *deliveries: Delivery,
        consumer: UUID | None = None,
        number: int = 1,
        retry_policy: RetryPolicy = AT_ONCE,
    ) -> list[MessageOutcome] | None:
        batch = Batch(consumer or uuid4(), number, deliveries)
        async with sessions.begin() as session:
            results = await service.consume_batch(
                session, batch, retry_policy=retry_policy, still_valid=lambda: True
            )
        return None if results is None else _outcomes(results)

    return take


@pytest.fixture
def retry(sessions: Sessions) -> Retry:
    """Return a function that retries all due dead letters."""

    return partial(letters.retry, sessions)


def _outcomes(results: Sequence[MessageResult]) -> list[MessageOutcome]:
    return [each.outcome for each in results]
