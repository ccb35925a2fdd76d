"""What can be refused about users, addresses and products?"""

from daybook_domain.errors import Conflict, NotFound


class UserNotFound(NotFound):
    """There is no such user."""

    code = "user_not_found"


class AddressNotFound(NotFound):
    """The user has no such address."""

    code = "address_not_found"


class ProductNotFound(NotFound):
    """There is no such product."""

    code = "product_not_found"


class AlreadyTaken(Conflict):
    """Another user has this name or email; `field` says which."""

    code = "taken"


class StillReferenced(Conflict):
    """Orders refer to it, so it cannot be deleted."""

    code = "in_use"
