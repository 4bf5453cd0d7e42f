"""What takes a ledger and its keystore together: who signs for it, and signing where its chains stand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import msgspec
import sqlalchemy as sa

from upstack.core.errors import LedgerError
from upstack.core.store.chain import CHAIN_ROWS
from upstack.core.store.engine import saying, transaction
from upstack.core.store.keystore import KEYSTORE_MISSING, Keystore
from upstack.core.store.links import KINDS, read_chains
from upstack.core.store.places import keystore_of, shown
from upstack.core.store.reading import check_version
from upstack.core.store.signing import Signer
from upstack.core.store.statements import Checkpoint, stood
from upstack.core.store.tables import checkpoints, contents, outcome_contents, tombstones

_ENCRYPTED = "contents encrypted under keys"
_SIGNED = "tombstones or checkpoints signed by the key"


@contextmanager
def custody(place: str, keystore: str | None = None, *, new: bool = False) -> Iterator[tuple[Keystore, Signer]]:
    """Open the keystore of a ledger that is there. The file and the key that signs are made where there are none.

    LedgerError where the ledger counts on others that are lost, unless `new` says that this is known.
    """
    check_version(place)
    path = keystore_of(place, keystore)
    with saying(place), transaction(place) as database:
        counts_on = None if new else _counts_on(database)
    with closing(Keystore(path, write=True, new=counts_on is None)) as opened:
        signer = opened.signer()
        if signer is None:
            if counts_on == _SIGNED:
                words = f"the keystore {path} has no key that signs, and {shown(place)} has {counts_on} of another"
                raise LedgerError(f"{words}; put that back, or see `upstack ledger key --new`", code=KEYSTORE_MISSING)
            opened.add_signer()
            signer = opened.signer()
        assert signer is not None  # noqa: S101 - it was made
        yield opened, signer


def make_checkpoints(place: str, signer: Signer) -> list[Checkpoint]:
    """Sign where each chain of the ledger stands, and keep that in it."""
    with saying(place), transaction(place, write=True) as database:
        points = []
        for chain in read_chains(database):
            seq, hash_there = chain.head_seq, chain.head_hash
            for kind in KINDS:  # the table of chains is told once a second
                rows = kind.rows.c
                newer = rows.seq.between(seq + 1, (chain.id + 1) * CHAIN_ROWS - 1)
                query = sa.select(rows.seq, rows.hash).where(newer).order_by(rows.seq.desc()).limit(1)
                seq, hash_there = database.execute(query).first() or (seq, hash_there)
            points.append(stood(signer, chain.id, seq, hash_there))
        if points:
            database.execute(checkpoints.insert(), [msgspec.structs.asdict(point) for point in points])
    return points


def last_checkpoint(place: str) -> str:
    """When the last one was made; empty: never."""
    with saying(place), transaction(place) as database:
        return database.execute(sa.select(sa.func.max(checkpoints.c.created_at))).scalar() or ""


def _counts_on(database: sa.Connection) -> str | None:
    """What of the ledger is lost without its keystore, or None."""
    for table in (tombstones, checkpoints):
        if database.execute(sa.select(table.c.id).limit(1)).first() is not None:
            return _SIGNED
    for table in (contents, outcome_contents):
        if database.execute(sa.select(table.c.cipher_key).where(table.c.cipher_key.is_not(None)).limit(1)).first():
            return _ENCRYPTED
    return None
