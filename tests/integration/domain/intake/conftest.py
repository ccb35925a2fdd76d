"""What do the tests of the intake share? A shop, and a way to hand batches in."""

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
    """Begin with user 1, address 1 and product 1, of which there are 1,000."""
    await open_shop(engine)


@pytest.fixture
def take(sessions: Sessions, shop: None) -> Take:
    """Return a way to commit a batch as a consumer, a new one each time unless it is named."""

    async def take(
        *deliveries: Delivery,
        consumer: UUID | None = None,
        number: int = 1,
        retry_policy: RetryPolicy = AT_ONCE,
    ) -> list[MessageOutcome] | None:
        batch = Batch(consumer or uuid4(), number, deliveries)
        async with sessions.begin() as session:
            settled = await service.consume_batch(
                session, batch, retry_policy=retry_policy, still_valid=lambda: True
            )
        return None if settled is None else _outcomes(settled)

    return take


@pytest.fixture
def retry(sessions: Sessions) -> Retry:
    """Return a way to try all letters again that are due."""

    return partial(letters.retry, sessions)


def _outcomes(settled: Sequence[MessageResult]) -> list[MessageOutcome]:
    return [each.outcome for each in settled]
