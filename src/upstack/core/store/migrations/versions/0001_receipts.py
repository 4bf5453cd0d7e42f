"""Receipts, their contents, and the openings of streams."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _of_a_receipt() -> list[sa.Column[object]]:
    return [
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("task", sa.Text),
        sa.Column("strategy", sa.Text, nullable=False),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("route", sa.Text),
        sa.Column("stream", sa.Integer, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_input_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("cost_picodollars", sa.BigInteger),
        sa.Column("first_byte_s", sa.Double),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("attempts", sa.Text, nullable=False),
        sa.Column("capture", sa.Text, nullable=False),
    ]


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "receipts",
        sa.Column("seq", _Id, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *_of_a_receipt(),
    )
    op.create_table(
        "contents",
        sa.Column("receipt_seq", _Id, sa.ForeignKey("receipts.seq"), primary_key=True, autoincrement=False),
        sa.Column("request", sa.LargeBinary),
        sa.Column("answer", sa.LargeBinary),
    )
    op.create_table(
        "openings",
        sa.Column("id", sa.Text, primary_key=True),
        *_of_a_receipt(),
        sa.Column("request", sa.LargeBinary),
        sqlite_with_rowid=False,
    )
