"""Retention: removes what is older than it is to be kept, receipts and outcomes or their contents alone.

Age is counted from when a request came in or an outcome was recorded, as the id says. Sums of spend stay. The newest
row of a chain stays too, as the chain goes on from it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.chain import CHAIN_ROWS
from upstack.core.store.ids import first_id
from upstack.core.store.links import KINDS, OUTCOMES, RECEIPTS, Kind, read_chains
from upstack.core.store.removal import ChangedError, Remover, removing
from upstack.core.store.signing import Signer
from upstack.core.types import DAY_S

_PAGE = 2000  # rows that are looked at for contents at a time
_TRIES = 20  # at rows that another removes meanwhile
_WAIT_S = 0.1  # between the first and the second at most, then longer
_PREFIXES = {RECEIPTS: "rcpt_", OUTCOMES: "otcm_"}


class Retention(msgspec.Struct, frozen=True):
    """How many days something is kept; 0: for ever."""

    rows: float = 0.0
    contents: float = 0.0


class Pruned(msgspec.Struct, frozen=True):
    """How much was removed, or would be: receipts and outcomes, and contents of those that stay."""

    rows: int
    contents: int


class _Old(NamedTuple):
    """A row that is old enough."""

    age: str  # its id without the prefix: the time, then what makes it one of a kind
    seq: int
    kind: Kind
    has_content: bool


def prune(place: str, signer: Signer, retention: Retention, now: float, going_on: Callable[[], bool]) -> Pruned:
    """Remove what is too old, in small transactions, as long as `going_on` says so. Ended anywhere, all verifies."""
    rows = contents = 0
    with removing(place, signer) as remover:
        if retention.rows:
            rows = _prune_rows(remover, retention.rows, now, going_on)
        if retention.contents:
            contents = _prune_contents(remover, retention.contents, now, going_on)
    return Pruned(rows, contents)


def count(database: sa.Connection, retention: Retention, now: float) -> Pruned:
    """How much `prune` would remove."""
    rows = contents = 0
    heads = {chain.head_seq for chain in read_chains(database)}
    for kind in KINDS:
        older = kind.rows.c.id < _first(kind, now, retention.rows)
        if retention.rows:
            query = sa.select(sa.func.count()).select_from(kind.rows).where(older, kind.rows.c.seq.not_in(heads))
            rows += int(database.execute(query).scalar_one())
        if retention.contents:
            query = sa.select(sa.func.count()).select_from(kind.rows.join(kind.kept))
            query = query.where(kind.rows.c.id < _first(kind, now, retention.contents))
            contents += int(database.execute(query.where(~older) if retention.rows else query).scalar_one())
    return Pruned(rows, contents)


def _prune_rows(remover: Remover, days: float, now: float, going_on: Callable[[], bool]) -> int:
    total = 0
    tries = _Tries()
    while going_on():
        with remover.reading.begin():
            heads = {chain.id: chain.head_seq for chain in read_chains(remover.reading)}
            old = _oldest(remover.reading, "", now, days, remover.rows, but=set(heads.values()))
        seqs = [each.seq for each in old if each.seq < heads[each.seq // CHAIN_ROWS]]
        if not seqs:
            break
        with tries:
            total += remover.remove_rows(seqs, f"retention of {_days(days)}")
    return total


def _prune_contents(remover: Remover, days: float, now: float, going_on: Callable[[], bool]) -> int:
    total = 0
    tries = _Tries()
    after = ""
    while going_on():
        with remover.reading.begin():
            old = _oldest(remover.reading, after, now, days, _PAGE)
            full = [each for each in old if each.has_content][: remover.rows]
            if full:  # the rest of the page is looked at again
                old = [each for each in old if each.age <= full[-1].age]
            bare = _bare(remover.reading, [each.seq for each in old if not each.has_content]) if full else []
        if not old:
            break
        with tries:
            for kind in KINDS:
                seqs = [each.seq for each in full if each.kind is kind]
                if seqs:
                    total += remover.remove_contents(kind, seqs, f"content retention of {_days(days)}", bare)
            after = old[-1].age
    return total


class _Tries:
    """Lets a step be done again that another has come in between, but not for ever."""

    def __init__(self) -> None:
        self._left = _TRIES

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        if kind is not ChangedError:
            self._left = _TRIES
            return False
        self._left -= 1
        if not self._left:
            raise LedgerError("another process removes from this ledger at the same time; let it finish")
        time.sleep(_WAIT_S * random.random() * (_TRIES - self._left))
        return True


def _oldest(
    database: sa.Connection, after: str, now: float, days: float, limit: int, but: set[int] | None = None
) -> list[_Old]:
    """The first rows behind the time `after` that are old enough, of both kinds in order of time.

    With `but`, places to leave out, whether they have contents is not looked at.
    """
    found: list[_Old] = []
    for kind in KINDS:
        rows, prefix = kind.rows, _PREFIXES[kind]
        query = sa.select(rows.c.id, rows.c.seq, sa.null() if but is not None else kind.owner)
        query = query.select_from(rows if but is not None else rows.outerjoin(kind.kept))
        query = query.where(rows.c.id > prefix + after, rows.c.id < _first(kind, now, days))
        if but:
            query = query.where(rows.c.seq.not_in(but))
        for row_id, seq, owner in database.execute(query.order_by(rows.c.id).limit(limit)).all():
            found.append(_Old(row_id.removeprefix(prefix), seq, kind, owner is not None))
    return sorted(found, key=lambda each: each.age)[:limit]


def _bare(database: sa.Connection, seqs: list[int]) -> list[int]:
    """Those that never had a content."""
    found: list[int] = []
    for kind in KINDS:
        seq = kind.rows.c.seq
        found += database.execute(sa.select(seq).where(seq.in_(seqs), kind.rows.c.commitment.is_(None))).scalars()
    return found


def _first(kind: Kind, now: float, days: float) -> str:
    """What sorts before the id of everything that is not too old yet."""
    return _PREFIXES[kind] + first_id(max(0.0, now - days * DAY_S)).removeprefix("rcpt_")


def _days(days: float) -> str:
    return f"{days:g} day{'s' if days != 1 else ''}"
