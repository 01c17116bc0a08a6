"""The number of a creation is never given twice: one that takes long must not write its answer to another's place."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table anew, with the rows that it had."""
    op.drop_index("creations_by_name", "creations")
    op.rename_table("creations", "creations_before")
    op.create_table(
        "creations",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("body_sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_index("creations_by_name", "creations", ["project_id", "key_id", "name"], unique=True)
    names = "number, project_id, key_id, name, body_sha256, created_at, status, answer"
    op.execute(f"INSERT INTO creations ({names}) SELECT {names} FROM creations_before")
    op.drop_table("creations_before")
