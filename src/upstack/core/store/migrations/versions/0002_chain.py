"""The hash chain over receipts. Those that are there already make its first rows, in the order they have."""

import os

import sqlalchemy as sa
from alembic import op

from upstack.core.store.chain import SALT_BYTES, commit, link, new_chain
from upstack.core.store.rows import COLUMNS

revision = "0002"
down_revision = "0001"

_PAGE = 1000
_CHAIN = ("id", "created_at", "host", "genesis", "head_seq", "head_hash")


def upgrade() -> None:
    """Add the columns, and chain what is there."""
    op.add_column("receipts", sa.Column("commitment", sa.Text))
    op.add_column("receipts", sa.Column("hash", sa.Text))
    op.add_column("contents", sa.Column("salt", sa.LargeBinary))
    op.add_column("openings", sa.Column("chain", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "chains",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("genesis", sa.Text, nullable=False),
        sa.Column("head_seq", sa.BigInteger, nullable=False),
        sa.Column("head_hash", sa.Text, nullable=False),
    )
    _chain_what_is_there(op.get_bind())


def _chain_what_is_there(database: sa.Connection) -> None:
    names = ", ".join(COLUMNS[:22])
    page = sa.text(
        f"SELECT seq, {names}, receipt_seq, request, answer FROM receipts LEFT JOIN contents ON receipt_seq = seq"
        " WHERE seq > :last ORDER BY seq LIMIT :page"
    )
    chain = new_chain(0)
    last, previous = chain[4:]
    while rows := database.execute(page, {"last": last, "page": _PAGE}).fetchall():
        changes, salts = [], []
        for row in rows:
            last, commitment = row[0], None
            if row.receipt_seq is not None:
                salt = os.urandom(SALT_BYTES)
                commitment = commit(salt, _bytes(row.request), _bytes(row.answer))
                salts.append({"at": last, "salt": salt})
            previous = link(previous, last, tuple(row[1:23]), commitment)
            changes.append({"at": last, "commitment": commitment, "hash": previous})
        database.execute(sa.text("UPDATE receipts SET commitment = :commitment, hash = :hash WHERE seq = :at"), changes)
        if salts:
            database.execute(sa.text("UPDATE contents SET salt = :salt WHERE receipt_seq = :at"), salts)
    if last:
        chains = sa.table("chains", *(sa.column(name) for name in _CHAIN))
        database.execute(chains.insert().values((*chain[:4], last, previous)))


def _bytes(content: bytes | str | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content
