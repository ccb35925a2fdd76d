"""Random intake traffic for chaos tests, and the shop state that it must lead to."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.support.factories.messages import order_message
from tests.support.oracles.shop_state import ShopState

DUPLICATES, MALFORMED, OUT_OF_STOCK, EARLY = 0.05, 0.02, 0.02, 0.02
IN_STOCK, SOLD_OUT, ADDED_LATER = 1, 2, 3
"""Product ids: with sufficient stock, with none, and one created while the traffic is sent."""


@dataclass(frozen=True)
class TrafficMessage:
    """The body and the message id of a published message."""

    body: bytes
    message_id: str | None = None

    @property
    def properties(self) -> dict[str, str]:
        """The AMQP properties."""
        return {} if self.message_id is None else {"message_id": self.message_id}


@dataclass(frozen=True)
class Traffic:
    """Messages to the order queue, and the results that they must lead to."""

    messages: Sequence[TrafficMessage]
    applied: int
    duplicates: int
    dead_letters: Counter[str]
    """The number of dead letters in the state `kept`, by reason code."""
    sold: dict[int, int]
    """The quantity sold, by product id."""

    def check(self, found: ShopState, *, stock: dict[int, int]) -> None:
        """Fail unless `found` is the expected state; `stock` is the initial stock by product id."""
        kept = Counter(code for _, code in found.dead_letters.get("kept", []))
        assert kept == self.dead_letters
        assert found.dead_letters.keys() <= {"kept", "redriven"}
        assert found.orders == self.applied
        assert found.sold == self.sold
        assert found.stock == {key: stock[key] - self.sold.get(key, 0) for key in stock}
        assert len(self.messages) == found.orders + self.duplicates + kept.total()


def generate_traffic(count: int, *, seed: int) -> Traffic:
    """Return `count` messages: without an id, with an external id, and with a message id."""
    random = Random(seed)
    messages: list[TrafficMessage] = []
    dead_letters, sold = Counter[str](), Counter[int]()
    applied = duplicates = 0
    known: list[TrafficMessage] = []
    while len(messages) < count:
        chance, number = random.random(), len(messages)
        if chance < DUPLICATES and known:
            messages.append(random.choice(known))
            duplicates += 1
        elif chance < DUPLICATES + MALFORMED:
            messages.append(TrafficMessage(b"malformed %d" % number))
            dead_letters["malformed"] += 1
        elif chance < DUPLICATES + MALFORMED + OUT_OF_STOCK:
            messages.append(
                TrafficMessage(order_message(product=SOLD_OUT, external_id=str(number)))
            )
            dead_letters["out_of_stock"] += 1
        else:
            early = chance > 1 - EARLY
            product = ADDED_LATER if early else IN_STOCK
            message, quantity = _order(number, product)
            messages.append(message)
            applied += 1
            sold[product] += quantity
            if not early and (message.message_id or b"external_id" in message.body):
                known.append(message)
    return Traffic(messages, applied, duplicates, dead_letters, dict(sold))


def _order(number: int, product: int) -> tuple[TrafficMessage, int]:
    """Return an order, and its total quantity."""
    # The digits of the number become item quantities of 1 to 10, so that each body is unique:
    # equal bodies without an id could not be distinguished from redeliveries.
    quantities = [1 + int(digit) for digit in str(number)]
    items = [{"product_id": product, "quantity": quantity} for quantity in quantities]
    total = sum(quantities)
    match number % 3:
        case 0:
            return TrafficMessage(order_message(product=product, items=items)), total
        case 1:
            return TrafficMessage(
                order_message(product=product, items=items, external_id=f"e{number}")
            ), total
        case _:
            return TrafficMessage(
                order_message(product=product, items=items), message_id=f"m{number}"
            ), total


def format_expected_state(traffic: Traffic) -> str:
    """Return the expected totals as one line of JSON."""
    return json.dumps(
        {
            "published": len(traffic.messages),
            "applied": traffic.applied,
            "duplicates": traffic.duplicates,
            "dead_letters": traffic.dead_letters,
        }
    )
