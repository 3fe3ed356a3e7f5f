"""Alembic's environment: migrations run on the connection that ``database.migrate`` gives, in its transaction."""

from alembic import context

from fleet_server.adapters.sql.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite changes a table by making it anew
    render_as_batch=True,
)
context.run_migrations()
