"""The hash chain over receipts: what makes an edited, missing or reordered row show.

    hash of a row = SHA-256( {"previous": hash of the row before, "seq": ..., "id": ..., ..., "commitment": ...} )

The JSON is compact, its members in the order of `rows.COLUMNS`, those that are NULL left out: a column that a later
version adds changes no older hash. Content is not in it, as a short prompt could be guessed from its hash. In its place
stands a commitment, SHA-256( salt, length of the request, request, length of the answer, answer ), whose random salt is
kept and erased with the content. The formula never changes: ledgers out there were written with it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

import msgspec

from upstack.core.store.rows import COLUMNS, Content, Row, moment

CHAIN_ROWS = 1 << 40  # seq = chain * CHAIN_ROWS + position
SALT_BYTES = 16
_ABSENT = b"\xff" * 8  # in place of a length

SealedRow = tuple[Any, ...]  # seq, the values of COLUMNS, commitment, hash
SealedContent = tuple[int, bytes | None, bytes | None, bytes]  # seq, request, answer, salt

_Link = msgspec.defstruct(
    "_Link",
    [("previous", str), ("seq", int), *((name, Any, None) for name in COLUMNS), ("commitment", str | None, None)],
    omit_defaults=True,
    gc=False,
)
_encode = msgspec.json.Encoder().encode


class Head(msgspec.Struct, frozen=True):
    """The newest row of a chain; of an empty one the place before the first, and its genesis."""

    seq: int
    hash: str


def link(previous: str, seq: int, row: Row, commitment: str | None) -> str:
    """Hash a row onto the chain; one from before the latest columns may be shorter."""
    return sha256(_encode(_Link(previous, seq, *row, commitment=commitment))).hexdigest()


def commit(salt: bytes, content: Content) -> str:
    """Hash a content, so that who has it and its salt can show that it belongs to a receipt."""
    request, answer = content
    head = salt + (_ABSENT if request is None else len(request).to_bytes(8)) + (request or b"")
    return sha256(b"%b%b%b" % (head, _ABSENT if answer is None else len(answer).to_bytes(8), answer or b"")).hexdigest()


def seal(
    head: Head, rows: Iterable[Row], contents: Iterable[Content | None]
) -> tuple[Head, list[SealedRow], list[SealedContent]]:
    """Chain `rows` behind `head`: the new head, the rows and those contents there are, ready to be stored."""
    seq, previous = head.seq, head.hash
    sealed: list[SealedRow] = []
    kept: list[SealedContent] = []
    for row, content in zip(rows, contents, strict=True):
        seq += 1
        commitment = None
        if content is not None:
            salt = os.urandom(SALT_BYTES)
            commitment = commit(salt, content)
            kept.append((seq, *content, salt))
        previous = sha256(_encode(_Link(previous, seq, *row, commitment))).hexdigest()
        sealed.append((seq, *row, commitment, previous))
    return Head(seq, previous), sealed, kept


def new_chain(chain: int, now: float | None = None) -> tuple[int, str, str, str, int, str]:
    """A row of the table of chains. The genesis is random, so that no two chains can be taken for each other."""
    genesis = os.urandom(32).hex()
    created_at = moment(time.time() if now is None else now)
    return chain, created_at, platform.node(), genesis, chain * CHAIN_ROWS, genesis
