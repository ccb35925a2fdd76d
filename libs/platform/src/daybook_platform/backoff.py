"""Exponential backoff with jitter."""

import random
from collections.abc import Iterator


def delays(*, first: float = 0.2, longest: float = 3.0) -> Iterator[float]:
    """Yield delays in seconds, endlessly: doubling up to `longest`, with a jitter of 25%."""
    delay = first
    while True:
        yield delay * random.uniform(0.75, 1.25)
        delay = min(delay * 2, longest)
