"""Errors of orders."""

from daybook_domain.errors import Conflict, Invalid, NotFound


class OrderNotFound(NotFound):
    """The order does not exist."""

    code = "order_not_found"


class OutOfStock(Conflict):
    """The stock of a product is smaller than the requested quantity."""

    code = "out_of_stock"


class ExternalIdTaken(Conflict):
    """An order with this external id exists and has other content."""

    code = "external_id_taken"


class UnknownReference(Invalid):
    """The order refers to a row that does not exist (yet); `field` names the reference."""

    code = "unknown_reference"


class AddressOfAnotherUser(Invalid):
    """The delivery address belongs to another user."""

    code = "foreign_address"


class NoItems(Invalid):
    """The order has no items."""

    code = "no_items"


class TotalTooLarge(Invalid):
    """The total price exceeds the maximum."""

    code = "total_too_large"


class StockLimitExceeded(Conflict):
    """Returning the items would make the stock of a product exceed the maximum."""

    code = "stock_full"


class StatusConflict(Conflict):
    """The status of the order does not allow the change."""

    code = "status_forbids"


class ReportBuilding(Conflict):
    """A report that may contain the order is being built; the change is possible after that."""

    code = "report_building"


class OrderReported(Conflict):
    """A report contains the order, so it cannot be deleted."""

    code = "order_reported"
