"""Signed statements about a ledger: what was removed from it on purpose, and where its chains stood.

    signature = Ed25519( msgpack [ "upstack tombstone 1", the values of a tombstone in the order below, signer ] )
    signature = Ed25519( msgpack [ "upstack checkpoint 1", the values of a checkpoint in the order below, signer ] )

A tombstone of kind "rows" says that a stretch of a chain, receipts and outcomes, is gone: from the row that followed
`hash_before` to the one with `hash_after`. One of kind "contents" says that only contents are, of the rows in `seqs`, a
JSON list of numbers and of pairs [first, last]; `hash_after` is then the hash of the row `last_seq`, which ties it to
its chain.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from upstack.core.store.rows import moment
from upstack.core.store.signing import Signer

Ranges = list[tuple[int, int]]  # both ends included, in order, apart from each other


class Tombstone(msgspec.Struct, frozen=True):
    """What is gone; a row of the table of tombstones."""

    id: str
    created_at: str
    kind: Literal["rows", "contents"]
    first_seq: int
    last_seq: int
    removed: int
    hash_before: str | None
    hash_after: str | None
    seqs: str | None
    why: str
    signer: str = ""
    signature: str = ""

    def values(self) -> tuple[Any, ...]:
        """What is signed."""
        return ("upstack tombstone 1", *msgspec.structs.astuple(self)[:-1])

    def ranges(self) -> Ranges:
        """The places it speaks of."""
        if self.kind == "rows":
            return [(self.first_seq, self.last_seq)]
        found = msgspec.json.decode(self.seqs or "[]", type=list[int | tuple[int, int]])
        return [(each, each) if isinstance(each, int) else each for each in found]


class Checkpoint(msgspec.Struct, frozen=True):
    """Where a chain stood; a row of the table of checkpoints, and what is kept elsewhere."""

    id: str
    created_at: str
    chain: int
    seq: int
    hash: str
    signer: str = ""
    signature: str = ""

    def values(self) -> tuple[Any, ...]:
        """What is signed."""
        return ("upstack checkpoint 1", *msgspec.structs.astuple(self)[:-1])


def rows_gone(signer: Signer, ends: tuple[int, int], hashes: tuple[str | None, str], why: str) -> Tombstone:
    """Sign that the rows between two places, both included, are gone."""
    first, last = ends
    stone = Tombstone(_new_id("tomb"), _now(), "rows", first, last, last - first + 1, *hashes, None, why)
    return _signed(stone, signer)


def contents_gone(signer: Signer, ranges: Ranges, removed: int, last_hash: str | None, why: str) -> Tombstone:
    """Sign that in these places no content is left; `last_hash` is that of the last row."""
    seqs = msgspec.json.encode([first if first == last else (first, last) for first, last in ranges]).decode()
    ends = ranges[0][0], ranges[-1][1]
    stone = Tombstone(_new_id("tomb"), _now(), "contents", *ends, removed, None, last_hash, seqs, why)
    return _signed(stone, signer)


def stood(signer: Signer, chain: int, seq: int, hash_there: str) -> Checkpoint:
    """Sign where a chain stands."""
    point = Checkpoint(_new_id("chkp"), _now(), chain, seq, hash_there, signer.fingerprint)
    return msgspec.structs.replace(point, signature=signer.sign(point.values()))


def to_tombstone(row: Mapping[Any, Any]) -> Tombstone:
    """Read a row of the table, or of an export; msgspec.ValidationError where it is none."""
    return msgspec.convert({str(name): value for name, value in row.items()}, Tombstone)


def to_checkpoint(row: Mapping[Any, Any]) -> Checkpoint:
    """Read a row of the table, or of an export; msgspec.ValidationError where it is none."""
    return msgspec.convert({str(name): value for name, value in row.items()}, Checkpoint)


def consecutive(seqs: Iterable[int]) -> Ranges:
    """Gather numbers, in order, into ranges."""
    ranges: Ranges = []
    for seq in seqs:
        if ranges and seq == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
    return ranges


def united(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> Ranges:
    """All places of both."""
    ranges: Ranges = []
    for first, last in sorted((*one, *other)):
        if ranges and first <= ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], max(last, ranges[-1][1]))
        else:
            ranges.append((first, last))
    return ranges


def _signed(stone: Tombstone, signer: Signer) -> Tombstone:
    stone = msgspec.structs.replace(stone, signer=signer.fingerprint)
    return msgspec.structs.replace(stone, signature=signer.sign(stone.values()))


def _new_id(kind: str) -> str:
    return f"{kind}_{os.urandom(8).hex()}"


def _now() -> str:
    return moment(time.time())
