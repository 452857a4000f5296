"""Run by alembic, on the connection the store has opened."""

from alembic import context

from manager_stub.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
