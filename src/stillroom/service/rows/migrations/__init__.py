"""How the service's tables came to be: what Alembic runs when the service starts on an older database."""
