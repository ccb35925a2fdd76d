"""What can be refused about keys of requests?"""

from daybook_domain.errors import Invalid


class KeyReused(Invalid):
    """The key came with a request of other content before."""

    code = "idempotency_key_reused"
