"""Backups: sound copies of a ledger in use, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.postgres import PostgresServer
from upstack.core.errors import LedgerError
from upstack.core.store.backup import backup, restore
from upstack.core.store.verify import verify
from upstack.testing.receipts import make_receipt
from upstack.testing.store_checks import opened, recorded

NOW = 1_800_000_000.0


async def add(place: str, count: int) -> None:
    """Record receipts."""
    async with opened(place) as ledger:
        await recorded(ledger, *(make_receipt() for _ in range(count)))


def test_a_backup_while_serving_is_one_moment_and_comes_back(tmp_path: Path) -> None:
    """It verifies, is its owner's alone, and the ledger that it takes the place of is kept."""
    place, copy = str(tmp_path / "upstack.db"), str(tmp_path / "copy.db")

    async def main() -> None:
        async with opened(place) as ledger:
            await recorded(ledger, *(make_receipt() for _ in range(500)))
            task = asyncio.create_task(asyncio.to_thread(backup, place, copy))
            while not task.done():
                assert await recorded(ledger, make_receipt()) == [None]
            (end,) = await task
            assert end.seq >= 500
            with pytest.raises(LedgerError, match="in use"):
                await asyncio.to_thread(restore, copy, place, NOW)

    asyncio.run(main())
    assert Path(copy).stat().st_mode & 0o777 == 0o600
    kept, all_of_it = verify(copy), verify(place)
    assert kept.found == all_of_it.found == 0
    assert 500 <= kept.receipts <= all_of_it.receipts
    asyncio.run(add(place, 1))
    ends, aside = restore(copy, place, NOW)
    assert aside == f"{place}.before-20270115T080000Z"
    assert verify(aside).receipts == all_of_it.receipts + 1
    assert verify(place).receipts == kept.receipts == ends[0].seq
    asyncio.run(add(place, 3))
    assert verify(place).found == 0
    assert verify(place).receipts == kept.receipts + 3
    assert not [path for path in tmp_path.iterdir() if path.suffix in {".tmp", ".restoring"}]


def test_nothing_is_overwritten_and_no_other_file_restored(tmp_path: Path) -> None:
    """A file that is there stays, and the ledger stays where what comes is no ledger or is damaged."""
    place, copy = str(tmp_path / "upstack.db"), str(tmp_path / "copy.db")
    asyncio.run(add(place, 50))
    backup(place, copy)
    with pytest.raises(LedgerError, match="nothing is overwritten"):
        backup(place, copy)
    with pytest.raises(LedgerError, match="cannot be written"):
        backup(place, str(tmp_path / "no" / "copy.db"))
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"no database at all" * 100)
    damaged = tmp_path / "damaged.db"
    whole = Path(copy).read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2])
    for bad in (junk, damaged, tmp_path / "nothing.db"):
        with pytest.raises(LedgerError):
            restore(str(bad), place, NOW)
    assert verify(place).receipts == 50
    assert not [path for path in tmp_path.iterdir() if ".before-" in path.name or ".tmp" in path.name]


def test_postgresql_has_tools_of_its_own(postgres: PostgresServer, tmp_path: Path) -> None:
    """They are named."""
    with pytest.raises(LedgerError, match="pg_dump"):
        backup(postgres.url("ledger"), str(tmp_path / "copy"))
