"""The hash chain over receipts: what makes an edited, missing or reordered row show.

    hash = SHA-256( msgpack [ hash of the row before, seq, commitment, [values of rows.COLUMNS] ] )

NULLs at the end of the values are left out: a column that a later version adds changes no older hash. Content is not
in it, as a short prompt could be guessed from its hash. In its place stands a commitment to what is stored:

    commitment = SHA-256( salt, length of the request, length of the answer, request, answer )

with lengths of 8 bytes, big-endian, -1 for NULL. The random salt is kept, and erased, with the content. Hashes are
written in hexadecimal. The formula never changes: ledgers out there were written with it.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from hashlib import sha256
from struct import Struct
from typing import Any

import msgspec

from upstack.core.store.rows import Row, moment

CHAIN_ROWS = 1 << 40  # seq = chain * CHAIN_ROWS + position
SALT_BYTES = 16

SealedRow = tuple[Any, ...]  # seq, the values of COLUMNS, commitment, hash
Kept = tuple[bytes | None, bytes | None, str | None, str | None]  # request, answer, subject, id of their key: as stored
SealedContent = tuple[int, bytes | None, bytes | None, str | None, str | None, bytes]  # seq, those, salt

_encode = msgspec.msgpack.Encoder().encode
_lengths = Struct(f">{SALT_BYTES}sqq").pack


class Head(msgspec.Struct, frozen=True):
    """The newest row of a chain; of an empty one the place before the first, and its genesis."""

    seq: int
    hash: str


def link(previous: str, seq: int, row: Row, commitment: str | None) -> str:
    """Hash a row onto the chain."""
    while row[-1] is None:
        row = row[:-1]
    return sha256(_encode((previous, seq, commitment, row))).hexdigest()


def commit(salt: bytes, request: bytes | None, answer: bytes | None) -> str:
    """Hash a content as it is stored, so that who has it and its salt can show that it belongs to a receipt."""
    commitment = sha256(_lengths(salt, -1 if request is None else len(request), -1 if answer is None else len(answer)))
    if request:
        commitment.update(request)
    if answer:
        commitment.update(answer)
    return commitment.hexdigest()


def seal(
    head: Head, rows: Sequence[Row], contents: Sequence[Kept | None]
) -> tuple[Head, list[SealedRow], list[SealedContent]]:
    """Chain `rows` behind `head`: the new head, the rows and those contents there are, ready to be stored."""
    seq, previous = head.seq, head.hash
    salts = os.urandom(SALT_BYTES * len(rows))
    sealed: list[SealedRow] = []
    kept: list[SealedContent] = []
    for index, (row, content) in enumerate(zip(rows, contents, strict=True)):
        seq += 1
        commitment = None
        if content is not None:
            salt = salts[SALT_BYTES * index : SALT_BYTES * (index + 1)]
            commitment = commit(salt, content[0], content[1])
            kept.append((seq, *content, salt))
        previous = link(previous, seq, row, commitment)
        sealed.append((seq, *row, commitment, previous))
    return Head(seq, previous), sealed, kept


def new_chain(chain: int, now: float | None = None) -> tuple[int, str, str, str, int, str]:
    """A row of the table of chains. The genesis is random, so that no two chains can be taken for each other."""
    genesis = os.urandom(32).hex()
    created_at = moment(time.time() if now is None else now)
    return chain, created_at, platform.node(), genesis, chain * CHAIN_ROWS, genesis
