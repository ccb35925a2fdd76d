"""What traffic do producers make in a test of everything going wrong, and what must come of it?"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.support.messages import Books, order

DUPLICATES, MALFORMED, OUT_OF_STOCK, EARLY = 0.05, 0.02, 0.02, 0.02
PLENTY, SOLD_OUT, LATE = 1, 2, 3
"""Products: with stock for all, with none, and one that comes in the middle of it all."""


@dataclass(frozen=True)
class Message:
    """What is sent, and how."""

    body: bytes
    message_id: str | None = None

    @property
    def properties(self) -> dict[str, str]:
        """What is sent beside the body."""
        return {} if self.message_id is None else {"message_id": self.message_id}


@dataclass(frozen=True)
class Traffic:
    """Messages to the queue of orders, and the books that they must lead to."""

    messages: Sequence[Message]
    applied: int
    duplicates: int
    letters: Counter[str]
    """Kept dead letters, by reason code."""
    sold: dict[int, int]

    def check(self, found: Books, *, stock: dict[int, int]) -> None:
        """Fail unless the books are what they must be; `stock` is what there was at first."""
        kept = Counter(code for _, code in found.letters.get("kept", []))
        assert kept == self.letters
        assert found.letters.keys() <= {"kept", "redriven"}
        assert found.orders == self.applied
        assert found.sold == self.sold
        assert found.stock == {key: stock[key] - self.sold.get(key, 0) for key in stock}
        assert len(self.messages) == found.orders + self.duplicates + kept.total()


def traffic(count: int, *, seed: int) -> Traffic:
    """Return so many messages: plain ones, ones with an external id, and ones with a message id."""
    random = Random(seed)
    messages: list[Message] = []
    letters, sold = Counter[str](), Counter[int]()
    applied = duplicates = 0
    known: list[Message] = []
    while len(messages) < count:
        chance, number = random.random(), len(messages)
        if chance < DUPLICATES and known:
            messages.append(random.choice(known))
            duplicates += 1
        elif chance < DUPLICATES + MALFORMED:
            messages.append(Message(b"malformed %d" % number))
            letters["malformed"] += 1
        elif chance < DUPLICATES + MALFORMED + OUT_OF_STOCK:
            messages.append(Message(order(product=SOLD_OUT, external_id=str(number))))
            letters["out_of_stock"] += 1
        else:
            early = chance > 1 - EARLY
            product = LATE if early else PLENTY
            message, pieces = _order(number, product)
            messages.append(message)
            applied += 1
            sold[product] += pieces
            if not early and (message.message_id or b"external_id" in message.body):
                known.append(message)
    return Traffic(messages, applied, duplicates, letters, dict(sold))


def _order(number: int, product: int) -> tuple[Message, int]:
    """Return an order, and how many pieces it is of."""
    # Written in items of one to ten pieces, so that each body is another: of two that are equal
    # and have no id, nobody can tell which of them came again.
    quantities = [1 + int(digit) for digit in str(number)]
    items = [{"product_id": product, "quantity": quantity} for quantity in quantities]
    pieces = sum(quantities)
    match number % 3:
        case 0:
            return Message(order(product=product, items=items)), pieces
        case 1:
            return Message(order(product=product, items=items, external_id=f"e{number}")), pieces
        case _:
            return Message(order(product=product, items=items), message_id=f"m{number}"), pieces


def described(traffic: Traffic) -> str:
    """Return the expected books in one line."""
    return json.dumps(
        {
            "published": len(traffic.messages),
            "applied": traffic.applied,
            "duplicates": traffic.duplicates,
            "letters": traffic.letters,
        }
    )
