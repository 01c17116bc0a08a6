"""With each stored completion: which teacher said it, and where and under which model it was asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; of older rows only the name is known."""
    for name in ("teacher_id", "teacher_url", "teacher_model"):
        op.add_column("completions", sa.Column(name, sa.String(), nullable=True))
