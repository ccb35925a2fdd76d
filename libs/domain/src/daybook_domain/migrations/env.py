"""How does Alembic reach the database? Only through a connection that `migrate.py` hands over."""

from alembic import context

from daybook_domain.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
with context.begin_transaction():
    context.run_migrations()
