"""What can be refused about orders?"""

from daybook_domain.errors import Conflict, Invalid, NotFound


class OrderNotFound(NotFound):
    """There is no such order."""

    code = "order_not_found"


class OutOfStock(Conflict):
    """Less of a product is left than the order wants."""

    code = "out_of_stock"


class ExternalIdTaken(Conflict):
    """Another order, of other content, came with the same external id."""

    code = "external_id_taken"


class UnknownReference(Invalid):
    """The order refers to something that does not exist, yet; `field` says where."""

    code = "unknown_reference"


class AddressOfAnotherUser(Invalid):
    """The address to deliver to is another user's."""

    code = "foreign_address"


class NoItems(Invalid):
    """An order needs something that is ordered."""

    code = "no_items"


class TotalTooLarge(Invalid):
    """The items cost more together than an order can."""

    code = "total_too_large"


class StockLimitExceeded(Conflict):
    """The pieces of the order cannot be put back: the stock of a product would be too large."""

    code = "stock_full"


class StatusConflict(Conflict):
    """The status of the order does not allow the change."""

    code = "status_forbids"


class OrderReported(Conflict):
    """A report counts the order, so it cannot vanish."""

    code = "order_reported"
