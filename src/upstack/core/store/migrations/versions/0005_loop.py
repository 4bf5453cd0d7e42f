"""What rows may be used for, what was frozen to learn from, and the students that learned from it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add tables, and a column."""
    op.add_column("submissions", sa.Column("eager", sa.Integer))
    op.create_table(
        "rights",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("said", sa.Text, nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("task", "created_at", "manifest")),
    )
    op.create_index("snapshots_task", "snapshots", ["task", "created_at"])
    op.create_table(
        "students",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("task", "created_at", "snapshot", "summary")),
        sa.Column("model", sa.LargeBinary),
        *(sa.Column(name, sa.Text) for name in ("ended_at", "ended_why")),
    )
    op.create_index("students_task", "students", ["task", "created_at"])
