"""Who asked, outcomes, sums of spend, what was removed, checkpoints. The sums begin with what is there already."""

import sqlalchemy as sa
from alembic import op

from upstack.core.store.rows import COLUMNS
from upstack.core.store.spending import Tally

revision = "0003"
down_revision = "0002"

_PAGE = 1000
_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_SPEND = ("day", "chain", "key", "team", "task", "route", "provider", "model")
_SUMS = (
    "requests",
    "attempts",
    "input_tokens",
    "output_tokens",
    "cost_picodollars",
    "unknown_attempts",
    "unknown_reserved_picodollars",
)


def upgrade() -> None:
    """Add columns and tables, and sum up what is there."""
    for table in ("receipts", "openings"):
        for name in ("key", "team", "episode"):
            op.add_column(table, sa.Column(name, sa.Text))
        op.add_column(table, sa.Column("reserved_picodollars", sa.BigInteger))
    for table in ("contents", "openings"):
        op.add_column(table, sa.Column("subject", sa.Text))
        op.add_column(table, sa.Column("cipher_key", sa.Text))
    _index_where_set("receipts", "episode")
    _index_where_set("contents", "subject")
    _index_where_set("contents", "cipher_key")
    _add_outcomes()
    _add_custody()
    op.create_table(
        "spend",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("chain", sa.Integer, primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.Text, primary_key=True) for name in _SPEND[2:]),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _SUMS),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leases",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("period", sa.Text, primary_key=True),
        sa.Column("chain", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("picodollars", sa.BigInteger, nullable=False),
    )
    _sum_up(op.get_bind())


def _add_outcomes() -> None:
    op.create_table(
        "outcomes",
        sa.Column("seq", _Id, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("observed_at", sa.Text, nullable=False),
        sa.Column("receipt", sa.Text),
        sa.Column("episode", sa.Text),
        sa.Column("only_key", sa.Text),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("success", sa.Integer),
        sa.Column("score", sa.Double),
        sa.Column("withdrawn", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text, nullable=False),
        sa.Column("commitment", sa.Text),
        sa.Column("hash", sa.Text, nullable=False),
        sa.UniqueConstraint("key", "idempotency_key"),
    )
    _index_where_set("outcomes", "receipt")
    _index_where_set("outcomes", "episode")
    op.create_table(
        "outcome_contents",
        sa.Column("outcome_seq", _Id, sa.ForeignKey("outcomes.seq"), primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.LargeBinary) for name in ("comment", "demonstration", "salt")),
        sa.Column("subject", sa.Text),
        sa.Column("cipher_key", sa.Text),
    )
    _index_where_set("outcome_contents", "subject")
    _index_where_set("outcome_contents", "cipher_key")


def _add_custody() -> None:
    op.create_table(
        "tombstones",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("first_seq", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("removed", sa.BigInteger, nullable=False),
        sa.Column("hash_before", sa.Text),
        sa.Column("hash_after", sa.Text),
        sa.Column("seqs", sa.Text),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("signer", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
    )
    op.create_table(
        "checkpoints",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("chain", sa.Integer, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("signer", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
    )


def _index_where_set(table: str, column: str) -> None:
    there = sa.text(f"{column} IS NOT NULL")
    op.create_index(f"{table}_{column}", table, [column], sqlite_where=there, postgresql_where=there)


def _sum_up(database: sa.Connection) -> None:
    names = ", ".join(COLUMNS[:22])
    page = sa.text(f"SELECT seq, {names} FROM receipts WHERE seq > :last ORDER BY seq LIMIT :page")
    last, tallies = 0, {}
    while rows := database.execute(page, {"last": last, "page": _PAGE}).fetchall():
        for row in rows:
            chain = row[0] >> 40
            if chain not in tallies:
                tallies[chain] = Tally(chain)
            tallies[chain].add((*row[1:], None, None, None, None))
        last = rows[-1][0]
    sums = sa.table("spend", *(sa.column(name) for name in (*_SPEND, *_SUMS)))
    for tally in tallies.values():
        database.execute(sums.insert(), [dict(zip((*_SPEND, *_SUMS), each, strict=True)) for each in tally.rows()])
