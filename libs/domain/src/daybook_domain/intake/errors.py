"""Errors of messages and dead letters."""

from daybook_domain.errors import Conflict, Invalid, NotFound, Unavailable


class Malformed(Invalid):
    """The body cannot be parsed."""

    code = "malformed"


class InvalidMessage(Invalid):
    """The body can be parsed but violates the schema of its queue."""

    code = "invalid_message"


class MessageIdReused(Conflict):
    """A message with the same message id and other content was received before."""

    code = "message_id_reused"


class Postponed(Conflict):
    """An earlier update of the same subject is waiting, so this one waits too."""

    code = "postponed"


class UnexpectedFailure(Conflict):
    """Processing the message failed with an unexpected error, which is a bug of Daybook."""

    code = "unforeseen"


class DeliveryLimitReached(Conflict):
    """Processing was interrupted so often that the message may be what crashes the workers."""

    code = "delivery_limit"


class DeliveriesLost(Unavailable):
    """RabbitMQ may have redelivered the messages to another worker; nothing was committed."""

    code = "not_ours"


class DeadLetterNotFound(NotFound):
    """The dead letter does not exist."""

    code = "dead_letter_not_found"


class DeadLetterClosed(Conflict):
    """The dead letter was already processed or discarded."""

    code = "dead_letter_closed"


class DeadLetterChanged(Conflict):
    """The dead letter was edited since the caller read it."""

    code = "dead_letter_changed"
