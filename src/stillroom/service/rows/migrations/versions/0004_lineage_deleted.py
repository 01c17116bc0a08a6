"""Counts what was deleted of a job's rows without looking at the others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add its index."""
    gone = sa.text("deleted_at IS NOT NULL")
    names = ["project_id", "job_id", "deleted_at"]
    op.create_index("lineage_deleted", "lineage", names, unique=False, sqlite_where=gone)
