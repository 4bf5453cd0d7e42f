"""Goes along chains and names every row that was edited, removed, added or moved: pure, over rows from anywhere.

What a believed tombstone covers may be missing. What no walk can see is a ledger whose owner has chained it anew from
some row on; checkpoints that were kept elsewhere can.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from upstack.core.store.chain import CHAIN_ROWS, commit, link
from upstack.core.store.signing import PublicKeys
from upstack.core.store.statements import Checkpoint, Tombstone

MOST_FINDINGS = 1000  # that are kept; more are only counted


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it was written. `receipt` is None where it has no id any more."""

    chain: int
    position: int  # in the chain, from 1
    receipt: str | None  # or the outcome
    what: str


class Removed(msgspec.Struct, frozen=True):
    """What tombstones say was removed on purpose."""

    kind: str  # "rows" or "contents"
    why: str
    removed: int


class Verification(msgspec.Struct, frozen=True):
    """What came of it. `findings` is empty where all is as it was written, but for what was removed on purpose."""

    chains: int
    receipts: int  # that were looked at
    outcomes: int
    contents: int
    removed: tuple[Removed, ...]
    checkpoints: int  # that were compared with the row they speak of
    findings: tuple[Finding, ...]  # the first MOST_FINDINGS
    found: int


class Chain(msgspec.Struct, frozen=True):
    """A chain, as the table of chains knows it."""

    id: int
    genesis: str
    head_seq: int
    head_hash: str


class Link(msgspec.Struct, frozen=True, gc=False):
    """A row of a chain."""

    seq: int
    id: str
    values: tuple[Any, ...]  # that are hashed
    commitment: str | None
    hash: str | None
    content: tuple[bytes | None, bytes | None] | None = None  # as it is stored; None: there is none
    salt: bytes | None = None
    outcome: bool = False


class Walk:
    """A verification under way: give it chain after chain, then ask for the result."""

    def __init__(
        self,
        tombstones: Iterable[Tombstone],
        checkpoints: Iterable[Checkpoint],
        keys: PublicKeys,
        *,
        whole: bool = True,
    ) -> None:
        """`whole`: every row of every chain will be looked at."""
        self._whole = whole
        self._counts: Counter[str] = Counter()
        self._findings: list[Finding] = []
        self._found = 0
        believed = [each for each in tombstones if self._believe(each, each.first_seq, "tombstone", keys)]
        self._stones = sorted((each for each in believed if each.kind == "rows"), key=lambda each: each.first_seq)
        self._buried: set[str] = set()  # ids of those whose rows are gone indeed
        self._emptied = [each for each in believed if each.kind == "contents"]
        gone = sorted((*ends, at) for at, each in enumerate(self._emptied) for ends in each.ranges())
        self._gone_from = [first for first, _, _ in gone]
        self._gone = _running(gone)
        self._ties = {each.last_seq: each for each in self._emptied}
        self._points: dict[int, list[Checkpoint]] = {}
        for point in checkpoints:
            if self._believe(point, point.seq, "checkpoint", keys):
                self._points.setdefault(point.seq, []).append(point)

    def note(self, seq: int, receipt: str | None, what: str) -> None:
        """Take down something that is not as it was written."""
        self._found += 1
        if len(self._findings) < MOST_FINDINGS:
            chain, position = divmod(seq, CHAIN_ROWS)
            self._findings.append(Finding(chain, position, receipt, what))

    def follow(
        self, chain: Chain, links: Iterable[Link], start: tuple[int, str | None] | None = None, *, to_end: bool = True
    ) -> None:
        """Follow one chain from link to link, in order of `seq`.

        `start`: the first place and the hash before it (None: not known), where that is not the chain's beginning.
        """
        begin = chain.id * CHAIN_ROWS
        self._compare(begin, chain.genesis)
        at, previous = (begin + 1, chain.genesis) if start is None else start
        ended = chain.head_seq == begin and chain.head_hash == chain.genesis
        for each in links:
            if each.seq != at:
                previous = self._skip(at, each.seq, previous, f"before {each.id}")
            self._counts["outcomes" if each.outcome else "receipts"] += 1
            if previous is not None and each.hash != link(previous, each.seq, each.values, each.commitment):
                self.note(each.seq, each.id, "does not follow from the row before it: edited, moved or put in")
            elif each.seq == chain.head_seq and each.hash != chain.head_hash:
                self.note(each.seq, each.id, "is not what the chain ended with: the chain was made anew")
            ended = ended or each.seq == chain.head_seq
            self._compare(each.seq, each.hash)
            self._check_content(each)
            at, previous = each.seq + 1, each.hash
        if to_end and at <= chain.head_seq:
            self._skip(at, chain.head_seq + 1, previous, "at the end")
        elif self._whole and not ended:
            self.note(chain.head_seq, None, "is not there, where the table of chains has the end of this chain")

    def result(self, chains: int) -> Verification:
        """What came of it."""
        if self._whole:
            for stone in self._stones:
                if stone.id not in self._buried:
                    what = f"what the tombstone {stone.id} says was removed is here, or was never here"
                    self.note(stone.first_seq, None, what)
            for point in (point for points in self._points.values() for point in points):
                if not self._inside_a_removed_stretch(point.seq):
                    what = f"is not there, where the chain stood at the checkpoint {point.id} of {point.created_at}"
                    self.note(point.seq, None, what)
        removed: Counter[tuple[str, str]] = Counter()
        for stone in (*(each for each in self._stones if each.id in self._buried), *self._emptied):
            removed[stone.kind, stone.why] += stone.removed
        counts = self._counts
        return Verification(
            chains,
            counts["receipts"],
            counts["outcomes"],
            counts["contents"],
            tuple(Removed(kind, why, count) for (kind, why), count in sorted(removed.items(), reverse=True)),
            counts["checkpoints"],
            tuple(self._findings),
            self._found,
        )

    def _believe(self, statement: Tombstone | Checkpoint, seq: int, kind: str, keys: PublicKeys) -> bool:
        doubt = keys.doubt(statement.signer, statement.signature, statement.values())
        if doubt is not None:
            self.note(seq, None, f"the {kind} {statement.id} {doubt}")
        return doubt is None

    def _skip(self, first: int, end: int, previous: str | None, where: str) -> str | None:
        """Account for the places from `first` up to `end`, where no rows are: the hash that the next follows."""
        at = first
        for stone in self._stones_between(first, end):
            if stone.last_seq >= end or stone.first_seq < at:
                continue  # it speaks of rows that are here, or of what another has accounted for
            if stone.first_seq > at:
                self.note(at, None, _missing(stone.first_seq - at, where))
            elif previous is not None and stone.hash_before != previous:
                self.note(at, None, f"the tombstone {stone.id} does not follow from the row before it")
            self._buried.add(stone.id)
            self._compare(stone.first_seq - 1, stone.hash_before)
            self._compare(stone.last_seq, stone.hash_after)
            at, previous = stone.last_seq + 1, stone.hash_after
        if at < end:
            self.note(at, None, _missing(end - at, where))
            return None
        return previous

    def _stones_between(self, first: int, end: int) -> Sequence[Tombstone]:
        begin = bisect_right(self._stones, first - 1, key=lambda stone: stone.first_seq)
        return self._stones[begin : bisect_right(self._stones, end - 1, key=lambda stone: stone.first_seq)]

    def _inside_a_removed_stretch(self, seq: int) -> bool:
        """Whether the row is gone on purpose, so that there is nothing to compare."""
        before = bisect_right(self._stones, seq, key=lambda stone: stone.first_seq)
        return any(
            stone.last_seq > seq and stone.id in self._buried for stone in self._stones[max(0, before - 1) : before]
        )

    def _compare(self, seq: int, found: str | None) -> None:
        """Hold what checkpoints say of a place against the hash that is there."""
        for point in self._points.pop(seq, ()):
            self._counts["checkpoints"] += 1
            if found is not None and point.hash != found:
                what = f"is not what it was at the checkpoint {point.id} of {point.created_at}: the chain was made anew"
                self.note(seq, None, what)

    def _check_content(self, each: Link) -> None:
        tie = self._ties.get(each.seq)
        if tie is not None and tie.hash_after != each.hash:
            self.note(each.seq, each.id, f"is not the row that the tombstone {tie.id} speaks of")
        gone = self._gone_at(each.seq)
        if each.content is None:
            if each.commitment is not None and gone is None:
                self.note(each.seq, each.id, "its content is missing")
            return
        self._counts["contents"] += 1
        if each.commitment is None or each.salt is None or commit(each.salt, *each.content) != each.commitment:
            self.note(each.seq, each.id, "its content is not what was recorded")
        elif gone is not None:
            self.note(each.seq, each.id, f"its content is here, and the tombstone {gone.id} says that it was removed")

    def _gone_at(self, seq: int) -> Tombstone | None:
        """The tombstone that covers the content of a row."""
        at = bisect_right(self._gone_from, seq) - 1
        if at < 0:
            return None
        last, which = self._gone[at]
        return self._emptied[which] if last >= seq else None


def _running(gone: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """For each range in order of its beginning: how far it or one before it reaches, and whose that is."""
    reach: list[tuple[int, int]] = []
    for _, last, which in gone:
        reach.append(max(reach[-1], (last, which)) if reach else (last, which))
    return reach


def _missing(count: int, where: str) -> str:
    return f"{count} row{'s are' if count > 1 else ' is'} missing {where}"
