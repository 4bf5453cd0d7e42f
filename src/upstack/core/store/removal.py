"""Removes rows and contents from a ledger, each time with the tombstone that says so in the same transaction.

What is to go is read, checked and signed first, so that a transaction that writes is short. It goes only if all of it
is still there then; else it is read anew. Tombstones of one reason that meet become one, so that there are few.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.chain import CHAIN_ROWS, link
from upstack.core.store.engine import connected, saying
from upstack.core.store.links import KINDS, Kind, hash_at, read_chains, read_links
from upstack.core.store.places import is_postgres
from upstack.core.store.signing import PublicKeys, Signer
from upstack.core.store.statements import (
    Ranges,
    Tombstone,
    consecutive,
    contents_gone,
    rows_gone,
    to_tombstone,
    united,
)
from upstack.core.store.tables import tombstones

_LEAST, _MOST = 10, 1000  # rows in one transaction
_HOLD_S = 0.0015  # that a transaction should take; who meets one waits as long
_PAUSE = 300  # times as long as it took, while somebody else writes: one commit in so many may meet it
_PAUSE_BEHIND = 20  # the same, while more is added than removed
_PAUSE_MOST_S = 2.0
_QUIET_S = 3.0  # without a commit of another: nobody is disturbed
_RANGES_MOST = 2000  # in one tombstone


class ChangedError(Exception):
    """What was to be removed has changed since it was read; it is to be read anew."""


class Remover:
    """A ledger that is open for removals. `rows` is how many the next transaction should remove."""

    def __init__(
        self, place: str, reading: sa.Connection, writing: sa.Connection, signer: Signer, pause: float
    ) -> None:
        self.reading = reading
        self.rows = 100
        self._removed = 0
        self._length: int | None = None  # of all chains, when the first was removed
        self._writing = writing
        self._signer = signer
        self._ours = PublicKeys([signer.pem])
        self._pause = pause
        self._file = not is_postgres(place)
        self._seen: int | None = None  # SQLite's count of what others have committed
        self._seen_at = -math.inf  # when it last changed

    def remove_rows(self, seqs: Iterable[int], why: str) -> int:
        """Remove these rows and their contents, whatever chain they are of; how many."""
        stretches = consecutive(sorted(seqs))
        with self.reading.begin():
            known = self._known("rows", why)
            stones = self._joined([*known, *(self._buried(*ends, why) for ends in stretches)], why)
        with self._short() as database:
            for ends in stretches:
                for kind in KINDS:
                    database.execute(kind.kept.delete().where(kind.owner.between(*ends)))
                removed = [database.execute(k.rows.delete().where(k.rows.c.seq.between(*ends))).rowcount for k in KINDS]
                if sum(removed) != ends[1] - ends[0] + 1:
                    raise ChangedError
            self._erect(database, known, stones)
            total = sum(last - first + 1 for first, last in stretches)
            self._removed += total
        return total

    def remove_contents(self, kind: Kind, seqs: Sequence[int], why: str, bare: Iterable[int] = ()) -> int:
        """Remove the contents of these rows, which are of one kind; how many.

        `bare`: rows that never had any, which may be named with them so that fewer ranges say it.
        """
        wanted = set(seqs)
        with self.reading.begin():
            known = self._known("contents", why)
            stones = known.copy()
            for chain in sorted({seq // CHAIN_ROWS for seq in wanted}):
                places = sorted(seq for seq in {*wanted, *bare} if seq // CHAIN_ROWS == chain)
                self._empty(stones, consecutive(places), sum(seq in wanted for seq in places), why)
        with self._short() as database:
            removed = database.execute(kind.kept.delete().where(kind.owner.in_(seqs))).rowcount
            if removed != len(wanted):
                raise ChangedError
            self._erect(database, known, stones)
            self._removed += removed
        return len(wanted)

    @contextmanager
    def _short(self) -> Iterator[sa.Connection]:
        """Write in one transaction, then pause for as long as others need to be undisturbed."""
        with self._writing.begin():
            begin = time.monotonic()
            alone = self._alone()
            yield self._writing
        held = time.monotonic() - begin
        if held > _HOLD_S:
            self.rows = max(_LEAST, self.rows // 2)
        elif held < _HOLD_S / 2:
            self.rows = min(_MOST, self.rows * 3 // 2)
        if not alone:
            pause = min(self._pause, _PAUSE_BEHIND) if self._behind() else self._pause
            time.sleep(min(pause * held, _PAUSE_MOST_S))

    def _behind(self) -> bool:
        """Whether others have added more than was removed here."""
        with self.reading.begin():
            length = sum(chain.head_seq % CHAIN_ROWS for chain in read_chains(self.reading))
        if self._length is None:
            self._length = length
        return length - self._length > self._removed

    def _alone(self) -> bool:
        """Whether nobody has committed for a while, or nobody is kept from it."""
        if not self._file:
            return True  # PostgreSQL lets others write meanwhile
        before, self._seen = self._seen, int(self._writing.exec_driver_sql("PRAGMA data_version").scalar_one())
        now = time.monotonic()
        if before is not None and before != self._seen:
            self._seen_at = now
        return now > self._seen_at + _QUIET_S

    def _known(self, kind: str, why: str) -> list[Tombstone]:
        """Our tombstones that new ones may join; a forged one would be made good by that."""
        query = sa.select(tombstones).where(tombstones.c.kind == kind, tombstones.c.why == why)
        found = [to_tombstone(row._mapping) for row in self.reading.execute(query).all()]  # noqa: SLF001
        return [each for each in found if self._ours.doubt(each.signer, each.signature, each.values()) is None]

    def _buried(self, first: int, last: int, why: str) -> Tombstone:
        """Check a stretch and sign that it is gone: what was edited before must not vanish without a word."""
        chain = next(each for each in read_chains(self.reading) if each.id == first // CHAIN_ROWS)
        before = previous = hash_at(self.reading, chain, first - 1)
        for each in read_links(self.reading, first, last, with_contents=False):
            if previous is not None and each.hash != link(previous, each.seq, each.values, each.commitment):
                words = f"{each.id} is not as it was written, so it is not removed; see `upstack ledger verify`"
                raise LedgerError(words, code="ledger_edited")
            previous = each.hash
        if previous is None:
            raise ChangedError
        return rows_gone(self._signer, (first, last), (before, previous), why)

    def _joined(self, stones: list[Tombstone], why: str) -> list[Tombstone]:
        """Make one of those that meet."""
        joined: list[Tombstone] = []
        for stone in sorted(stones, key=lambda each: each.first_seq):
            last = joined[-1] if joined else None
            if last is None or last.last_seq + 1 != stone.first_seq or last.hash_after != stone.hash_before:
                joined.append(stone)
            else:
                hashes = last.hash_before, str(stone.hash_after)
                joined[-1] = rows_gone(self._signer, (last.first_seq, stone.last_seq), hashes, why)
        return joined

    def _empty(self, stones: list[Tombstone], places: Ranges, removed: int, why: str) -> None:
        """Put these places into a tombstone of their chain that has room, else into a new one."""
        before: Tombstone | None = None
        ranges = places
        for stone in stones:
            if stone.first_seq // CHAIN_ROWS == places[0][0] // CHAIN_ROWS:
                both = united(stone.ranges(), places)
                if len(both) <= _RANGES_MOST:
                    before, ranges = stone, both
                    stones.remove(stone)
                    break
        chain = next(each for each in read_chains(self.reading) if each.id == places[0][0] // CHAIN_ROWS)
        last_hash = hash_at(self.reading, chain, ranges[-1][1])
        if before is not None:
            removed += before.removed
            last_hash = before.hash_after if before.last_seq == ranges[-1][1] else last_hash
        stones.append(contents_gone(self._signer, ranges, removed, last_hash, why))

    def _erect(self, database: sa.Connection, known: list[Tombstone], stones: list[Tombstone]) -> None:
        """Put up what is new among `stones`, in place of those known that went into it."""
        stay = {stone.id for stone in stones}
        for old in known:
            if old.id not in stay:
                gone = database.execute(tombstones.delete().where(tombstones.c.id == old.id))
                if gone.rowcount != 1:
                    raise ChangedError
        there = {stone.id for stone in known}
        new = [msgspec.structs.asdict(stone) for stone in stones if stone.id not in there]
        database.execute(tombstones.insert(), new)


@contextmanager
def removing(place: str, signer: Signer, *, pause: float = _PAUSE) -> Iterator[Remover]:
    """Open a ledger for removals; LedgerError where the database fails.

    While others write, each transaction is followed by a pause `pause` times as long.
    """
    with saying(place), connected(place) as reading, connected(place, write=True) as writing:
        yield Remover(place, reading, writing, signer, pause)
