"""How long to wait before trying again to reach what is away?"""

import random
from collections.abc import Iterator


def delays(*, first: float = 0.2, longest: float = 3.0) -> Iterator[float]:
    """Return seconds to wait, without end: doubling up to `longest`, jittered by a quarter."""
    delay = first
    while True:
        yield delay * random.uniform(0.75, 1.25)
        delay = min(delay * 2, longest)
