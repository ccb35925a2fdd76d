"""What can be refused about messages and dead letters?"""

from daybook_domain.errors import Conflict, Invalid, NotFound, Unavailable


class Malformed(Invalid):
    """The body cannot be read at all."""

    code = "malformed"


class InvalidMessage(Invalid):
    """The body can be read, and breaks the contract of its queue."""

    code = "invalid_message"


class MessageIdReused(Conflict):
    """Another message, of other content, came with the same message id."""

    code = "message_id_reused"


class Postponed(Conflict):
    """An earlier update of the same thing waits, so this one waits behind it."""

    code = "postponed"


class UnexpectedFailure(Conflict):
    """What the message asks for fails in a way that nobody has foreseen: a bug of ours."""

    code = "unforeseen"


class DeliveryLimitReached(Conflict):
    """Workers ended while they had the message, so often that it is suspected of it."""

    code = "delivery_limit"


class DeliveriesLost(Unavailable):
    """RabbitMQ may have given the deliveries to another worker; nothing was committed."""

    code = "not_ours"


class DeadLetterNotFound(NotFound):
    """There is no such dead letter."""

    code = "dead_letter_not_found"


class DeadLetterClosed(Conflict):
    """The dead letter was processed or discarded already."""

    code = "dead_letter_closed"


class DeadLetterChanged(Conflict):
    """Somebody has edited the dead letter since it was looked at."""

    code = "dead_letter_changed"
