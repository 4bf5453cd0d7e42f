"""The chain: whatever is changed by hand is found and named, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from upstack.core.store.chain import link
from upstack.core.store.engine import transaction
from upstack.core.store.rows import COLUMNS
from upstack.core.store.tables import metadata
from upstack.core.store.verify import verify
from upstack.core.store.walk import Finding
from upstack.core.types import Receipt
from upstack.testing.receipts import BARE, make_receipt
from upstack.testing.store_checks import opened, recorded


@pytest.fixture
def receipts(place: str) -> list[Receipt]:
    """Twelve receipts that are in the ledger; the last but one has no content."""
    made = [make_receipt(created_at=1_800_000_000.0 + hour * 3600) for hour in range(10)]
    made += [make_receipt(**BARE), make_receipt()]

    async def main() -> None:
        async with opened(place) as ledger:
            for begin in range(0, 12, 4):
                await recorded(ledger, *made[begin : begin + 4])

    asyncio.run(main())
    return made


def change(place: str, *statements: str) -> None:
    """Change the ledger by hand, past all that watches over it."""
    with transaction(place, write=True) as database:
        if not place.startswith("postgres"):
            database.exec_driver_sql("PRAGMA foreign_keys = OFF")
        for statement in statements:
            database.execute(sa.text(statement))


def found(place: str) -> list[tuple[int, str | None, str]]:
    """Positions, ids and words of what is found."""
    return [(finding.position, finding.receipt, finding.what) for finding in verify(place).findings]


def test_a_ledger_that_nobody_touched_is_whole(place: str, receipts: list[Receipt]) -> None:
    """All is looked at."""
    done = verify(place)
    assert (done.chains, done.receipts, done.contents, done.findings) == (1, len(receipts), 11, ())


def test_every_column_is_covered(place: str) -> None:
    """One value of each changed by hand, every one in another receipt: each is named, and no other."""
    made = [make_receipt() for _ in range(2 * len(COLUMNS))]

    async def main() -> None:
        async with opened(place) as ledger:
            await recorded(ledger, *made)

    asyncio.run(main())
    numbers = {row.name for row in metadata.tables["receipts"].columns if not isinstance(row.type, sa.Text)}
    values = {column: "7777" if column in numbers else "'x'" for column in COLUMNS}
    change(
        place,
        *(
            f"UPDATE receipts SET {column} = {values[column]} WHERE seq = {2 * at}"
            for at, column in enumerate(COLUMNS, 1)
        ),
    )
    named = found(place)
    assert [position for position, *_ in named] == [2 * at for at in range(1, len(COLUMNS) + 1)]
    assert all("edited" in what for *_, what in named)


def test_a_value_taken_away_is_found(place: str, receipts: list[Receipt]) -> None:
    """NULL in place of a value, and a value in place of NULL."""
    change(
        place,
        "UPDATE receipts SET cost_picodollars = NULL WHERE seq = 2",
        "UPDATE receipts SET error = '' WHERE seq = 3",
    )
    assert [position for position, *_ in found(place)] == [2, 3]


def test_missing_receipts_are_counted_where_they_were(place: str, receipts: list[Receipt]) -> None:
    """At the beginning, in the middle and at the end."""
    gone = "1, 6, 7, 12"
    change(place, f"DELETE FROM contents WHERE receipt_seq IN ({gone})", f"DELETE FROM receipts WHERE seq IN ({gone})")
    assert found(place) == [
        (1, None, f"1 row is missing before {receipts[1].id}"),
        (6, None, f"2 rows are missing before {receipts[7].id}"),
        (12, None, "1 row is missing at the end"),
    ]


def test_receipts_that_changed_places_are_found(place: str, receipts: list[Receipt]) -> None:
    """Two rows swapped, each as it was but for its number."""
    change(place, "DELETE FROM contents WHERE receipt_seq IN (4, 5)")
    change(place, *(f"UPDATE receipts SET seq = {new} WHERE seq = {old}" for old, new in ((4, 99), (5, 4), (99, 5))))
    assert [position for position, _, what in found(place) if "moved" in what] == [4, 5, 6]


def test_a_row_hashed_anew_is_found_by_the_next(place: str, receipts: list[Receipt]) -> None:
    """Who edits a row and mends its hash has broken the link behind it; the last row is held by the chain's head."""
    for seq, named in ((5, 6), (12, 12)):
        with transaction(place, write=True) as database:
            previous = database.execute(
                sa.text("SELECT hash FROM receipts WHERE seq = :seq"), {"seq": seq - 1}
            ).scalar_one()
            names = ", ".join(COLUMNS)
            row = database.execute(sa.text(f"SELECT {names}, commitment FROM receipts WHERE seq = {seq}")).one()
            values = [*row[: len(COLUMNS)]]
            values[COLUMNS.index("cost_picodollars")] = 1
            changed = {"hash": link(previous, seq, tuple(values), row.commitment), "seq": seq}
            database.execute(
                sa.text("UPDATE receipts SET cost_picodollars = 1, hash = :hash WHERE seq = :seq"), changed
            )
        assert named in [position for position, *_ in found(place)]


@pytest.mark.parametrize(
    ("statement", "position", "says"),
    [
        ("UPDATE contents SET answer = request WHERE receipt_seq = 3", 3, "not what was recorded"),
        ("UPDATE contents SET request = NULL WHERE receipt_seq = 3", 3, "not what was recorded"),
        ("DELETE FROM contents WHERE receipt_seq = 3", 3, "content is missing"),
        (
            "INSERT INTO contents (receipt_seq, salt) SELECT 11, salt FROM contents WHERE receipt_seq = 3",
            11,
            "not what",
        ),
        ("DELETE FROM chains", 1, "belongs to no chain"),
    ],
)
def test_contents_and_strays_are_found(
    place: str, receipts: list[Receipt], statement: str, position: int, says: str
) -> None:
    """A content that was changed, taken away or put in, and rows of no chain."""
    change(place, statement)
    first = found(place)[0]
    assert first[0] == position
    assert says in first[2]


def test_a_part_of_the_ledger_can_be_looked_at(place: str, receipts: list[Receipt]) -> None:
    """From one receipt up to another; what lies outside is not looked at, nor counted."""
    change(place, "UPDATE receipts SET why = 'x' WHERE seq IN (2, 9)")
    assert verify(place, receipts[2].id, receipts[8].id).found == 0
    assert verify(place, receipts[2].id, receipts[8].id).receipts == 6
    assert verify(place, receipts[1].id).found == 2
    assert verify(place, None, receipts[2].id).findings[0].position == 2
    assert verify(place, "rcpt_ffffffffffff").receipts == 0
    assert verify(place, "rcpt_ffffffffffff").found == 0


def test_a_prompt_cannot_be_guessed_from_its_receipt(place: str) -> None:
    """The same content has another commitment each time, and none is a plain hash of it."""
    same = [make_receipt(request=b"yes", answer=b"no") for _ in range(20)]

    async def main() -> None:
        async with opened(place) as ledger:
            await recorded(ledger, *same)

    asyncio.run(main())
    with transaction(place) as database:
        commitments = database.execute(sa.text("SELECT commitment FROM receipts")).scalars().all()
        salts = database.execute(sa.text("SELECT salt FROM contents")).scalars().all()
    assert len(set(commitments)) == 20
    assert len(set(map(bytes, salts))) == 20
    assert all(len(salt) == 16 for salt in salts)


def test_findings_are_bounded(place: str) -> None:
    """A ledger that is wrong throughout is told in bounded memory."""
    count = 1200

    async def main() -> None:
        async with opened(place) as ledger:
            for _ in range(12):
                await recorded(ledger, *(make_receipt(**BARE) for _ in range(count // 12)))

    asyncio.run(main())
    change(place, "UPDATE receipts SET why = 'x'")
    done = verify(place)
    assert (done.found, len(done.findings)) == (count, 1000)
    assert isinstance(done.findings[0], Finding)
