"""Errors of idempotency keys."""

from daybook_domain.errors import Invalid


class KeyReused(Invalid):
    """The key was used before, for a request with other content."""

    code = "idempotency_key_reused"
