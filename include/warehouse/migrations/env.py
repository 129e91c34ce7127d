"""Alembic's entry: run the numbered migrations on the connection that `migrate` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="schema_version", version_table_schema="audit")
with context.begin_transaction():
    context.run_migrations()
