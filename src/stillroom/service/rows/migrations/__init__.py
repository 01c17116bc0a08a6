"""How the service's tables came to be: what Alembic runs when the service starts."""
