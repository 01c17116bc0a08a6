"""How Alembic runs: on the connection that the service hands it."""

from __future__ import annotations

from alembic import context

from stillroom.service.rows.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
