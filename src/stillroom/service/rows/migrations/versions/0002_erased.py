"""Finds the last completion that was erased, without reading any."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add its index."""
    gone = sa.text("deleted_at IS NOT NULL")
    op.create_index("completions_erased", "completions", ["deleted_at"], unique=False, sqlite_where=gone)
