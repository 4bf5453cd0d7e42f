"""Verifies a ledger in its database: the walk along its chains, and rows that belong to none."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import chain as flatten

import msgspec
import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.chain import CHAIN_ROWS
from upstack.core.store.engine import saying, transaction
from upstack.core.store.keystore import KEYSTORE_MISSING, Keystore
from upstack.core.store.links import KINDS, hash_at, read_chains, read_checkpoints, read_links, read_tombstones
from upstack.core.store.places import keystore_of, shown
from upstack.core.store.reading import check_version
from upstack.core.store.signing import PublicKeys
from upstack.core.store.statements import Checkpoint
from upstack.core.store.tables import outcomes, receipts
from upstack.core.store.walk import Chain, Verification, Walk


def verify(
    place: str,
    since: str | None = None,
    until: str | None = None,
    *,
    keys: PublicKeys | None = None,
    held: Iterable[Checkpoint] = (),
) -> Verification:
    """Check receipts with ids from `since` (included) to `until` (not included), all without them.

    `keys`: whose signatures are believed, in place of the ledger's own keystore's; `held`: checkpoints that were kept
    elsewhere. Reads a snapshot, beside whoever writes. LedgerError where the ledger cannot be read.
    """
    check_version(place)
    keys = trusted(keystore_of(place)) if keys is None else keys
    whole = since is until is None
    try:
        with saying(place), transaction(place) as database:
            known = read_chains(database)
            points = {(point.id, point.signature): point for point in (*read_checkpoints(database), *held)}
            walk = Walk(read_tombstones(database), points.values(), keys, whole=whole)
            for chain in known:
                _follow(database, chain, walk, since, until)
            if whole:
                _look_for_strays(database, known, walk)
            return walk.result(len(known))
    except msgspec.ValidationError as error:
        words = f"the ledger {shown(place)} holds a chain, tombstone or checkpoint that is none: {error}"
        raise LedgerError(words) from None


def trusted(keystore: str, pems: Iterable[str] = ()) -> PublicKeys:
    """The keys in these PEM texts, and the one that the keystore signs with where there is one."""
    keys = PublicKeys(pems)
    try:
        with closing(Keystore(keystore)) as opened:
            signer = opened.signer()
    except LedgerError as error:
        if error.code != KEYSTORE_MISSING:
            raise
    else:
        if signer is not None:
            keys.add(signer.pem)
    return keys


def _follow(database: sa.Connection, chain: Chain, walk: Walk, since: str | None, until: str | None) -> None:
    first, last = _bounds(database, chain.id, since, until)
    if first > last:
        return
    start = None if since is None else (first, hash_at(database, chain, first - 1))
    walk.follow(chain, read_links(database, first, last), start, to_end=until is None)


def _bounds(database: sa.Connection, chain: int, since: str | None, until: str | None) -> tuple[int, int]:
    """The part of a chain to look at: from its first row not older than `since`, up to the last before `until`."""
    first, last = chain * CHAIN_ROWS + 1, (chain + 1) * CHAIN_ROWS - 1
    here = receipts.c.seq.between(first, last)
    if since is not None:
        found = database.execute(sa.select(sa.func.min(receipts.c.seq)).where(here, receipts.c.id >= since)).scalar()
        first = last + 1 if found is None else found
    if until is not None:
        found = database.execute(sa.select(sa.func.max(receipts.c.seq)).where(here, receipts.c.id < until)).scalar()
        last = first - 1 if found is None else found
    return first, last


def _look_for_strays(database: sa.Connection, known: list[Chain], walk: Walk) -> None:
    """Rows that belong to nothing."""
    for kind in KINDS:
        seq = kind.rows.c.seq
        places = [seq.between(chain.id * CHAIN_ROWS + 1, (chain.id + 1) * CHAIN_ROWS - 1) for chain in known]
        strays = database.execute(sa.select(seq, kind.rows.c.id).where(~sa.or_(sa.false(), *places)).limit(100))
        alone = database.execute(
            sa.select(kind.owner).select_from(kind.kept.outerjoin(kind.rows)).where(seq.is_(None)).limit(100)
        )
        for at, owner in flatten(strays.all(), ((at, None) for (at,) in alone.all())):
            walk.note(at, owner, "belongs to no chain" if owner else "is a content without its row")
    twice = sa.select(outcomes.c.seq, outcomes.c.id).join(receipts, receipts.c.seq == outcomes.c.seq).limit(100)
    for at, owner in database.execute(twice).all():
        walk.note(at, owner, "stands in the place of a receipt")
