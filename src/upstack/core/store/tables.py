"""The tables of the ledger, as the newest migration leaves them, in SQLite and in PostgreSQL alike.

The hot path does not read this file: its SQL names the columns of `rows.COLUMNS`, and a test holds the two together.
Money is in picodollars, times are UTC in ISO 8601 with microseconds, hashes are SHA-256 in hexadecimal.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()

_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only where it says INTEGER


def _of_a_receipt() -> list[Column[object]]:
    """The columns that a receipt has while its stream is open, too."""
    return [
        Column("created_at", Text, nullable=False, comment="when the request came in"),
        Column("state", Text, nullable=False, comment="answered, truncated, failed, cancelled; open: not ended yet"),
        Column("model", Text, nullable=False, comment="as the caller named it"),
        Column("task", Text),
        Column("strategy", Text, nullable=False),
        Column("plan", Text, nullable=False, comment="the targets in the order they would be asked"),
        Column("why", Text, nullable=False),
        Column("route", Text, comment="the one that answered"),
        Column("stream", Integer, nullable=False),
        Column("status", Integer, nullable=False, comment="HTTP status the caller saw"),
        Column("error", Text, comment="code of what went wrong"),
        Column("input_tokens", BigInteger),
        Column("output_tokens", BigInteger),
        Column("cached_input_tokens", BigInteger, comment="part of input_tokens"),
        Column("cache_write_tokens", BigInteger, comment="part of input_tokens"),
        Column("reasoning_tokens", BigInteger, comment="part of output_tokens"),
        Column("cost_picodollars", BigInteger, comment="1 USD = 10^12; NULL: unknown, never 0"),
        Column("first_byte_s", Double),
        Column("duration_s", Double, nullable=False),
        Column("attempts", Text, nullable=False, comment="JSON, in the order they were made"),
        Column("capture", Text, nullable=False),
    ]


# The only index is the one on `id`: ids are in order of time, so that all grows at the right edge and a commit touches
# few pages; openings, which come and go, have one tree only. Receipts are only ever added, and removed by retention.
receipts = Table(
    "receipts",
    metadata,
    Column("seq", _Id, primary_key=True, autoincrement=False, comment="chain * 2^40 + position in the chain, from 1"),
    Column("id", Text, nullable=False, unique=True),
    *_of_a_receipt(),
    Column("commitment", Text, comment="salted hash of the content; NULL: none was kept"),
    Column("hash", Text, comment="of this row and the hash of the row before it in the chain"),
)

contents = Table(
    "contents",
    metadata,
    Column("receipt_seq", _Id, ForeignKey("receipts.seq"), primary_key=True, autoincrement=False),
    Column("request", LargeBinary, comment="as the caller sent it; a salted digest where capture is hash"),
    Column("answer", LargeBinary, comment="as one chat completion, streamed or not"),
    Column("salt", LargeBinary, comment="goes into the receipt's commitment"),
)

openings = Table(
    "openings",
    metadata,
    Column("id", Text, primary_key=True),
    *_of_a_receipt(),
    Column("request", LargeBinary),
    Column("chain", Integer, nullable=False, server_default="0", comment="whose writer noted it"),
    comment="streams that may have begun and have not ended",
    sqlite_with_rowid=False,
)

chains = Table(
    "chains",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("created_at", Text, nullable=False),
    Column("host", Text, nullable=False, comment="where its latest writer runs"),
    Column("genesis", Text, nullable=False, comment="random; stands for the hash before the first row"),
    Column("head_seq", BigInteger, nullable=False, comment="the newest row"),
    Column("head_hash", Text, nullable=False),
    comment="one for each writer at a time",
)
