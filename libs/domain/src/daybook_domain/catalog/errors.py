"""Errors of users, addresses and products."""

from daybook_domain.errors import Conflict, NotFound


class UserNotFound(NotFound):
    """The user does not exist."""

    code = "user_not_found"


class AddressNotFound(NotFound):
    """The user has no address with this id."""

    code = "address_not_found"


class ProductNotFound(NotFound):
    """The product does not exist."""

    code = "product_not_found"


class AlreadyTaken(Conflict):
    """Another user has this username or email; `field` names which."""

    code = "taken"


class StillReferenced(Conflict):
    """Orders refer to the row, so it cannot be deleted."""

    code = "in_use"
