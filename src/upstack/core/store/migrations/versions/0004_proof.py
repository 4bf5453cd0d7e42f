"""Which requests are checks, what was asked beside them, and what was proved by them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns and tables."""
    for table in ("receipts", "openings"):
        op.add_column(table, sa.Column("coin", sa.Double))
        op.add_column(table, sa.Column("check_of", sa.Text))
    for name, column, there in (("receipts_check_of", "check_of", "check_of"), ("receipts_checks", "id", "coin")):
        where = sa.text(f"{there} IS NOT NULL")
        op.create_index(name, "receipts", [column], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "parts",
        sa.Column("id", sa.Text, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("task", "cluster", "part")),
    )
    op.create_index("parts_task", "parts", ["task", "id"])
    op.create_table(
        "submissions",
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("created_at", "since")),
        sa.Column("rows", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.LargeBinary, nullable=False) for name in ("terms", "plans")),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("delta", sa.Double, nullable=False),
        *(sa.Column(name, sa.Text) for name in ("ended_at", "ended_why")),
    )
    op.create_table(
        "certificates",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("task", sa.Text, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("submission", "place")),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("issued_at", "expires_at")),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text) for name in ("ended_at", "ended_why")),
    )
    op.create_index("certificates_task", "certificates", ["task", "issued_at"])
