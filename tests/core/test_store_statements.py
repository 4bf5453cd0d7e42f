"""Tombstones and checkpoints: what they cover is accepted, and nothing else; one byte changed anywhere is found."""

from __future__ import annotations

import itertools
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from tests.custody import DAY, START, add_outcome, ask, change, hourly, record
from upstack.core.errors import LedgerError
from upstack.core.store.custody import custody, make_checkpoints
from upstack.core.store.engine import transaction
from upstack.core.store.erasure import erase_subject
from upstack.core.store.links import read_chains, read_checkpoints, read_links, read_tombstones
from upstack.core.store.retention import Retention, prune
from upstack.core.store.rows import COLUMNS, OUTCOME_COLUMNS
from upstack.core.store.signing import PublicKeys, Signer, new_seed
from upstack.core.store.statements import Checkpoint, Tombstone, united
from upstack.core.store.tables import metadata
from upstack.core.store.verify import trusted, verify
from upstack.core.store.walk import Walk

STATEMENT = {
    "tombstones": tuple(Tombstone.__struct_fields__),
    "checkpoints": tuple(Checkpoint.__struct_fields__),
}
COVERED = {
    "receipts": ("seq", *COLUMNS, "commitment", "hash"),
    "outcomes": ("seq", *OUTCOME_COLUMNS, "commitment", "hash"),
    "contents": ("receipt_seq", "request", "answer", "salt"),
    "outcome_contents": ("outcome_seq", "comment", "salt"),
    "chains": ("id", "genesis", "head_seq", "head_hash"),
    **STATEMENT,
}


def whole_life(place: str) -> list[Checkpoint]:
    """Fill a ledger with one of everything, rows and contents removed; a checkpoint from before that."""
    made = hourly(30, subject="somebody")
    record(place, made[:20])
    with custody(place) as (keystore, signer):
        points = make_checkpoints(place, signer)
        erase_subject(place, keystore, signer, "somebody")
        record(place, hourly(30, subject="another", encrypted=True)[20:])
        add_outcome(place, made[20], START + 1.3 * DAY, b"well done")
        record(place, hourly(40)[32:])
        prune(place, signer, Retention(1.0, 0.8), START + 2 * DAY, lambda: True)
        make_checkpoints(place, signer)
    return points


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in a file, and its keystore, that have seen much."""
    folder = tmp_path_factory.mktemp("life")
    whole_life(str(folder / "upstack.db"))
    assert verify(str(folder / "upstack.db")).findings == ()
    return folder


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_one_byte_changed_anywhere_is_found(life: Path, tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    """In any table, row and column that the chain, a commitment or a signature covers."""
    place = str(tmp_path_factory.getbasetemp() / "edited.db")
    shutil.copy(life / "upstack.db", place)
    table = metadata.tables[data.draw(st.sampled_from(sorted(COVERED)))]
    column = table.c[data.draw(st.sampled_from(COVERED[table.name]))]
    raw = sa.type_coerce(column, sa.types.NullType())
    rowid: sa.ColumnElement[int] = sa.literal_column("rowid")
    keys = trusted(str(life / "upstack.db.keys"))
    with transaction(place, write=True) as database:
        database.exec_driver_sql("PRAGMA foreign_keys = OFF")
        rows = database.execute(sa.select(rowid, raw).select_from(table)).all()
        at, value = data.draw(st.sampled_from(rows))
        edited = data.draw(edits(value))
        statement = f"UPDATE {table.name} SET {column.name} = ? WHERE rowid = ?"
        try:
            database.exec_driver_sql(statement, (edited, at))
        except sa.exc.IntegrityError:  # the database itself refuses it
            reject()
    with suppress(LedgerError):  # a statement with a value of a wrong type
        assert verify(place, keys=keys).found


def edits(value: Any) -> st.SearchStrategy[Any]:
    """What somebody could put in the place of a value."""
    if value is None:
        return st.sampled_from(["x", 1, b"x"])
    if isinstance(value, int | float):
        return st.sampled_from([value + 1, -value - 1, None, "x"])
    if not len(value):
        return st.just("x")
    if isinstance(value, bytes):
        return st.integers(0, len(value) - 1).map(lambda at: value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
    return st.integers(0, len(value) - 1).map(lambda at: value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :])


def test_a_checkpoint_kept_elsewhere_finds_a_chain_made_anew(place: str) -> None:
    """Who owns ledger and keys can write another history, and it verifies; the checkpoint says that it is another."""
    record(place, hourly(12))
    with custody(place) as (_, signer):
        held = make_checkpoints(place, signer)
    assert verify(place, held=held).found == 0
    change(
        place,
        "DELETE FROM contents",
        "DELETE FROM receipts",
        "DELETE FROM checkpoints",
        "UPDATE chains SET head_seq = 0, head_hash = genesis",
    )
    record(place, hourly(15))
    assert verify(place).found == 0
    assert ["the chain was made anew" in each.what for each in verify(place, held=held).findings] == [True]
    change(place, "DELETE FROM contents", "DELETE FROM receipts", "UPDATE chains SET head_seq = 0, head_hash = genesis")
    assert ["is not there, where the chain stood" in each.what for each in verify(place, held=held).findings] == [True]


def test_a_checkpoint_within_what_was_removed_is_no_finding(place: str) -> None:
    """There is nothing to compare it with; one at the end of the stretch is held against the tombstone."""
    held = whole_life(place)
    done = verify(place, held=held)
    assert (done.found, done.checkpoints) == (0, 1)


def test_statements_of_an_unknown_signer_are_not_believed(place: str) -> None:
    """Unless the public key is given; then they are, without the keystore."""
    held = whole_life(place)
    with custody(place) as (_, signer):
        pem = signer.pem
    nobody = verify(place, keys=PublicKeys())
    assert any("public key is not known here" in each.what for each in nobody.findings)
    assert any("missing" in each.what for each in nobody.findings)
    assert verify(place, keys=PublicKeys([pem]), held=held).found == 0
    stranger = Signer(new_seed())
    assert verify(place, keys=PublicKeys([stranger.pem])).found


@pytest.mark.parametrize("pem", ["", "x", "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_public_key_is_refused(pem: str) -> None:
    """With the way to get one."""
    with pytest.raises(LedgerError, match="upstack ledger key"):
        PublicKeys([pem])


def test_a_tombstone_of_another_ledger_covers_nothing(tmp_path: Path) -> None:
    """The same key signs for both, and one's contents are deleted by hand with the other's tombstone put in."""
    one, other = str(tmp_path / "one.db"), str(tmp_path / "other.db")
    keystore = str(tmp_path / "keys")
    for place in (one, other):
        record(place, hourly(3, subject="somebody"))
    with custody(one, keystore) as (keys, signer):
        erase_subject(one, keys, signer, "somebody")
    ((*stone,),) = ask(one, "SELECT * FROM tombstones")
    with transaction(other, write=True) as database:
        database.exec_driver_sql("DELETE FROM contents")
        marks = ", ".join("?" * len(stone))
        database.exec_driver_sql(f"INSERT INTO tombstones VALUES ({marks})", tuple(stone))
    assert verify(one, keys=trusted(keystore)).found == 0
    said = [each.what for each in verify(other, keys=trusted(keystore)).findings]
    assert any("is not the row that the tombstone" in each for each in said)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM tombstones WHERE kind = 'rows'", "missing before"),
        ("DELETE FROM tombstones WHERE kind = 'contents'", "its content is missing"),
        ("UPDATE tombstones SET why = 'another reason'", "edited or forged"),
        ("UPDATE checkpoints SET hash = signature", "edited or forged"),
    ],
)
def test_what_is_done_to_statements_by_hand_is_found(place: str, statement: str, says: str) -> None:
    """Taken away or edited."""
    whole_life(place)
    change(place, statement)
    assert any(says in each.what for each in verify(place).findings)


def test_an_export_verifies_with_the_same_walk(place: str) -> None:
    """Rows, chains and statements from anywhere, as here from lists; a row left out is missed."""
    whole_life(place)
    with transaction(place) as database:
        (chain,) = read_chains(database)
        links = list(read_links(database, 1, chain.head_seq))
        stones, points = read_tombstones(database), read_checkpoints(database)
    keys = trusted(str(Path(place).with_name("upstack.db.keys")) if place.endswith(".db") else "upstack.keys")

    def walked(rows: list[Any]) -> int:
        walk = Walk(stones, points, keys)
        walk.follow(chain, rows)
        return walk.result(1).found

    assert walked(links) == 0
    assert walked(links[:-1]) > 0
    assert walked([*links[:2], *links[3:]]) == 1
    assert walked([msgspec.structs.replace(links[0], commitment=None), *links[1:]]) > 0


@given(st.lists(st.integers(0, 60)), st.lists(st.integers(0, 60)))
def test_united_ranges_are_the_union(one: list[int], other: list[int]) -> None:
    """In order, and none touches the next."""
    pairs = [[(low, low + 2) for low in each] for each in (one, other)]
    ranges = united(*pairs)
    places = {place for low, high in ranges for place in range(low, high + 1)}
    assert places == {place for low in (*one, *other) for place in range(low, low + 3)}
    assert all(high + 1 < low for (_, high), (low, _) in itertools.pairwise(ranges))
