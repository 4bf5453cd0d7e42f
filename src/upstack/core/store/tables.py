"""The tables of the ledger, as the newest migration leaves them, in SQLite and in PostgreSQL alike.

The hot path does not read this file: its SQL names the columns of `rows.COLUMNS`, and a test holds the two together.
Money is in picodollars, times are UTC in ISO 8601 with microseconds, hashes are SHA-256 in hexadecimal.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

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
        Column("key", Text, comment="name of the virtual key that asked"),
        Column("team", Text, comment="of the key"),
        Column("episode", Text, comment="the caller's name for what several requests belong to"),
        Column("reserved_picodollars", BigInteger, comment="held for each attempt: the most it may cost"),
        Column("coin", Double, comment="the chance of the coin that made it a check; NULL: it did not fall"),
        Column("check_of", Text, comment="id of the check that this was asked for, beside it"),
    ]


def _index_where_set(table: str, column: Column[Any]) -> Index:
    """An index that costs nothing where the column is NULL."""
    there = text(f"{column.name} IS NOT NULL")
    return Index(f"{table}_{column.name}", column, sqlite_where=there, postgresql_where=there)


# The only index of every row is the one on `id`: ids are in order of time, so that all grows at the right edge and a
# commit touches few pages; openings, which come and go, have one tree only. Receipts are only ever added, and removed
# by retention.
receipts = Table(
    "receipts",
    metadata,
    Column("seq", _Id, primary_key=True, autoincrement=False, comment="chain * 2^40 + position in the chain, from 1"),
    Column("id", Text, nullable=False, unique=True),
    *_of_a_receipt(),
    Column("commitment", Text, comment="salted hash of the content; NULL: none was kept"),
    Column("hash", Text, comment="of this row and the hash of the row before it in the chain"),
)
_index_where_set("receipts", receipts.c.episode)
_index_where_set("receipts", receipts.c.check_of)
_coin = text("coin IS NOT NULL")
Index("receipts_checks", receipts.c.id, sqlite_where=_coin, postgresql_where=_coin)

contents = Table(
    "contents",
    metadata,
    Column("receipt_seq", _Id, ForeignKey("receipts.seq"), primary_key=True, autoincrement=False),
    Column("request", LargeBinary, comment="as the caller sent it; a salted digest where capture is hash"),
    Column("answer", LargeBinary, comment="as one chat completion, streamed or not"),
    Column("salt", LargeBinary, comment="goes into the receipt's commitment"),
    Column("subject", Text, comment="the person or thing it is about, as the caller said; goes with the content"),
    Column("cipher_key", Text, comment="id of the key in the keystore that it is encrypted under; NULL: it is not"),
)
_index_where_set("contents", contents.c.subject)
_index_where_set("contents", contents.c.cipher_key)

openings = Table(
    "openings",
    metadata,
    Column("id", Text, primary_key=True),
    *_of_a_receipt(),
    Column("request", LargeBinary),
    Column("chain", Integer, nullable=False, server_default="0", comment="whose writer noted it"),
    Column("subject", Text),
    Column("cipher_key", Text),
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

outcomes = Table(
    "outcomes",
    metadata,
    Column("seq", _Id, primary_key=True, autoincrement=False, comment="its place in the chain, among the receipts"),
    Column("id", Text, nullable=False, unique=True),
    Column("created_at", Text, nullable=False, comment="when it was recorded"),
    Column("observed_at", Text, nullable=False, comment="when it was so, as its source says"),
    Column("receipt", Text, comment="id of the receipt it is about"),
    Column("episode", Text, comment="or the episode"),
    Column("only_key", Text, comment="of an episode: about the requests of this key alone"),
    Column("name", Text, nullable=False, comment="what was looked at; the latest of a name counts"),
    Column("success", Integer, comment="1 or 0"),
    Column("score", Double, comment="0 to 1"),
    Column("withdrawn", Integer, nullable=False, comment="1: what was told before of this name is not known any more"),
    Column("source", Text, nullable=False, comment="who or what says so"),
    Column("key", Text, nullable=False, comment="name of the virtual key that told; empty: none was asked for"),
    Column("idempotency_key", Text, nullable=False),
    Column("commitment", Text, comment="salted hash of the comment and the demonstration; NULL: there is neither"),
    Column("hash", Text, nullable=False),
    UniqueConstraint("key", "idempotency_key"),
    comment="what became of answers; rows are added, never changed",
)
_index_where_set("outcomes", outcomes.c.receipt)
_index_where_set("outcomes", outcomes.c.episode)

outcome_contents = Table(
    "outcome_contents",
    metadata,
    Column("outcome_seq", _Id, ForeignKey("outcomes.seq"), primary_key=True, autoincrement=False),
    Column("comment", LargeBinary),
    Column("demonstration", LargeBinary, comment="the right answer"),
    Column("salt", LargeBinary),
    Column("subject", Text),
    Column("cipher_key", Text),
)
_index_where_set("outcome_contents", outcome_contents.c.subject)
_index_where_set("outcome_contents", outcome_contents.c.cipher_key)

spend = Table(
    "spend",
    metadata,
    Column("day", Text, primary_key=True, comment="UTC, of when the request came in"),
    Column("chain", Integer, primary_key=True, autoincrement=False, comment="so that no two writers share a row"),
    *(
        Column(name, Text, primary_key=True, comment="empty: none")
        for name in ("key", "team", "task", "route", "provider", "model")
    ),
    Column("requests", BigInteger, nullable=False, comment="that ended with this route"),
    Column("attempts", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_picodollars", BigInteger, nullable=False, comment="of the attempts whose cost is known"),
    Column("unknown_attempts", BigInteger, nullable=False, comment="those whose cost is not"),
    Column("unknown_reserved_picodollars", BigInteger, nullable=False, comment="what had been reserved for them"),
    comment="sums over receipts, kept with every commit; they stay when receipts are removed",
    sqlite_with_rowid=False,
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", Text, nullable=False),
    Column("kind", Text, nullable=False, comment="rows: a stretch of the chain is gone; contents: only contents are"),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("removed", BigInteger, nullable=False, comment="how many rows or contents"),
    Column("hash_before", Text, comment="of rows: the hash the first followed"),
    Column("hash_after", Text, comment="of rows: the hash of the last"),
    Column("seqs", Text, comment="of contents: JSON, the seq of each receipt or outcome whose content is gone"),
    Column("why", Text, nullable=False),
    Column("signer", Text, nullable=False, comment="fingerprint of the public key"),
    Column("signature", Text, nullable=False, comment="Ed25519 over all the above"),
    comment="what was removed on purpose: retention, erasure",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", Text, nullable=False),
    Column("chain", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Text, nullable=False, comment="of the row with that seq"),
    Column("signer", Text, nullable=False, comment="fingerprint of the public key"),
    Column("signature", Text, nullable=False, comment="Ed25519 over all the above"),
    comment="signed sayings of where a chain stood",
)

parts = Table(
    "parts",
    metadata,
    Column("id", Text, primary_key=True, comment="of the check's receipt"),
    Column("task", Text, nullable=False),
    Column("cluster", Text, nullable=False, comment="id of the first check that is nearly the same"),
    Column("part", Text, nullable=False, comment="fit, evidence; repeat: evidence that its cluster has already"),
    comment="what a check may be used for: decided at first sight, for ever",
)
Index("parts_task", parts.c.task, parts.c.id)

submissions = Table(
    "submissions",
    metadata,
    Column("task", Text, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="from 1, never reset"),
    Column("created_at", Text, nullable=False),
    Column("since", Text, nullable=False, comment="the first id that may be evidence"),
    Column("rows", BigInteger, nullable=False, comment="checks there were, to learn from and as evidence"),
    Column("terms", LargeBinary, nullable=False, comment="what is to be proved of which routes, as JSON"),
    Column("plans", LargeBinary, nullable=False, comment="MessagePack, in the order of the proof"),
    Column("digest", Text, nullable=False, comment="SHA-256 of the plans"),
    Column("delta", Double, nullable=False, comment="the error probability of this attempt"),
    Column("ended_at", Text),
    Column("ended_why", Text),
    Column("eager", Integer, comment="1: a much cheaper plan is in sight, all requests are to be checks"),
    comment="attempts to certify, each written before any evidence is read",
)

certificates = Table(
    "certificates",
    metadata,
    Column("id", Text, primary_key=True),
    Column("task", Text, nullable=False),
    Column("submission", Integer, nullable=False),
    Column("place", Integer, nullable=False, comment="of its plan in the order, from 0"),
    Column("issued_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("plan", LargeBinary, nullable=False, comment="MessagePack"),
    Column("summary", Text, nullable=False, comment="JSON: what it stands on"),
    Column("ended_at", Text),
    Column("ended_why", Text, comment="expired, renewed, replaced, revoked: why, or changed: what"),
)
Index("certificates_task", certificates.c.task, certificates.c.issued_at)

rights = Table(
    "rights",
    metadata,
    Column("id", Text, primary_key=True, comment="of the receipt"),
    Column("said", Text, nullable=False, comment="JSON: licence, terms, consent, purpose, residency, source"),
    comment="what was said of a row's rights where it came in; what follows from it is worked out each time",
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", Text, primary_key=True, comment="SHA-256 of the manifest"),
    Column("task", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("manifest", Text, nullable=False, comment="JSON: rows with hashes, parts and rights; what was dropped, why"),
    comment="frozen sets of rows, named by what they are",
)
Index("snapshots_task", snapshots.c.task, snapshots.c.created_at)

students = Table(
    "students",
    metadata,
    Column("id", Text, primary_key=True, comment="SHA-256 of the model, 16 digits"),
    Column("task", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("snapshot", Text, nullable=False, comment="id of what it learned from"),
    Column("summary", Text, nullable=False, comment="JSON: rung, lessons, rights, what it would have said unseen"),
    Column("model", LargeBinary, comment="safetensors; NULL: removed"),
    Column("ended_at", Text),
    Column("ended_why", Text, comment="replaced, forbidden: why, or retrain: why"),
    comment="small models of one's own",
)
Index("students_task", students.c.task, students.c.created_at)

leases = Table(
    "leases",
    metadata,
    Column("subject", Text, primary_key=True, comment="key/NAME, team/NAME or task/NAME"),
    Column("period", Text, primary_key=True, comment="day 2026-01-31, month 2026-01 or total"),
    Column("chain", Integer, primary_key=True, autoincrement=False, comment="of the host that holds it"),
    Column("picodollars", BigInteger, nullable=False, comment="what that host may spend in the period"),
    comment="shares of a budget that several hosts spend from",
)
