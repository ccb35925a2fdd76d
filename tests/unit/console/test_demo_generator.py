"""Generated demo orders."""

from datetime import date, timedelta
from decimal import Decimal

from daybook_api.orders.schemas import OrderIn
from daybook_console import demo_generator
from daybook_console.demo_generator import DemoShop
from daybook_domain.reports.business_day import business_day

SHOP = DemoShop(addresses=[(1, 1)], products=[(number, Decimal(1)) for number in range(1, 51)])


def test_the_api_would_accept_each_demo_order() -> None:
    count = 0
    for number in range(60):
        day = business_day(date(2026, 10, 1) + timedelta(days=number), timezone="UTC")
        for order in demo_generator.generate_orders(1, SHOP, day, until=day.ends_at):
            items = [{"product_id": key, "quantity": count} for key, count, _ in order.items]
            OrderIn.model_validate({"user_id": 1, "delivery_address_id": 1, "items": items})
            count += 1
    assert count > 60 * 80
