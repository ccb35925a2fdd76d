"""Alembic environment; uses the connection that daybook_platform/postgres/migrate.py passes."""

from alembic import context

from daybook_domain.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_server_default=True,
    # A migration keeps its locks no longer than it takes, and may validate constraints or create
    # indexes outside of its transaction.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
