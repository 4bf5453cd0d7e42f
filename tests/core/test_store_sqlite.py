"""The ledger's file: what is written to it, what is refused, and how it is read."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from upstack.core.errors import LedgerError
from upstack.core.store import reading
from upstack.core.store.frames import WHOLE_BATCH, Batch
from upstack.core.store.reading import list_receipts, read_receipt
from upstack.core.store.rows import to_row
from upstack.core.store.schema import APPLICATION_ID, VERSION
from upstack.core.store.sqlite import SqliteLedger
from upstack.core.types import Receipt
from upstack.testing.receipts import BARE, make_receipt


def make_batch(receipts: list[Receipt], openings: list[Receipt] | None = None) -> Batch:
    """A batch as the writer receives it."""
    return (
        [to_row(receipt) for receipt in receipts],
        [
            None
            if receipt.request is receipt.answer is None
            else (receipt.request, receipt.answer, receipt.subject, False)
            for receipt in receipts
        ],
        [(*to_row(receipt), receipt.request, receipt.subject, False) for receipt in openings or []],
        [],
    )


def query(path: Path, sql: str, *values: Any) -> list[Any]:
    """Ask the file, as any program could."""
    with closing(sqlite3.connect(path)) as database, database:
        return database.execute(sql, values).fetchall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger may be made."""
    return tmp_path / "upstack.db"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        BARE,
        {"answer": None},
        {"request": b"\xff\xfe not text", "answer": b"\xed\xa0\x80"},
        {"request": b"a\0b", "answer": b""},
        {"request": b"x" * 3_000_000},
        {"capture": "hash", "request": b"\x00" * 32, "answer": b"\x9f" * 32},
    ],
)
def test_what_is_recorded_is_read_again(path: Path, changes: dict[str, Any]) -> None:
    """Metadata and contents come back byte for byte, also where they are no text."""
    ledger = SqliteLedger(str(path))
    receipt, other = make_receipt(**changes), make_receipt()
    assert ledger.record(make_batch([other, receipt])) == []
    assert read_receipt(path, receipt.id) == receipt
    assert read_receipt(path, other.id) == other
    ledger.close()
    assert read_receipt(path, receipt.id) == receipt


def test_contents_are_kept_apart_and_show_as_text(path: Path) -> None:
    """Text is TEXT, other bytes are BLOB, and without capture there is no row at all."""
    ledger = SqliteLedger(str(path))
    ledger.record(make_batch([make_receipt(), make_receipt(**BARE), make_receipt(answer=b"\xff")]))
    rows = query(path, "SELECT receipt_seq, typeof(request), typeof(answer) FROM contents ORDER BY 1")
    assert rows == [(1, "text", "text"), (3, "text", "blob")]
    assert query(path, "SELECT seq, created_at, usage.cost_picodollars FROM receipts AS usage WHERE seq = 1") == [
        (1, "2027-01-15T08:00:00.123456Z", 1950)
    ]
    ledger.close()


def test_the_file_is_the_owners_alone(path: Path) -> None:
    """Nobody else may read prompts: neither in the file nor in its companions."""
    ledger = SqliteLedger(str(path))
    ledger.record(make_batch([make_receipt()]))
    for suffix in ("", "-wal", "-shm"):
        assert stat.S_IMODE(Path(f"{path}{suffix}").stat().st_mode) == 0o600
    ledger.close()


def test_the_file_says_whose_it_is(path: Path) -> None:
    """`file` and other programs can tell a ledger; its version is the number of migrations."""
    SqliteLedger(str(path)).close()
    assert query(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert query(path, "PRAGMA user_version") == [(VERSION,)]
    assert query(path, "PRAGMA journal_mode") == [("wal",)]


def test_a_receipt_sent_twice_is_there_once(path: Path) -> None:
    """A batch that was committed before its answer got lost may be sent again."""
    ledger = SqliteLedger(str(path))
    receipts = [make_receipt() for _ in range(5)]
    assert ledger.record(make_batch(receipts[:3])) == []
    assert ledger.record(make_batch(receipts)) == []
    assert ledger.record(make_batch([receipts[4], receipts[4]])) == []
    assert [receipt.id for receipt in list_receipts(path, 10)] == [receipt.id for receipt in reversed(receipts)]
    assert query(path, "SELECT count(*) FROM contents") == [(5,)]
    ledger.close()


@pytest.mark.parametrize("poison", [{"duration_s": float("nan")}, {"cost_picodollars": 2**63}, {"status": None}])
def test_a_row_that_is_refused_does_not_take_others_with_it(path: Path, poison: dict[str, Any]) -> None:
    """The one bad receipt is named by its index, all others are durable."""
    ledger = SqliteLedger(str(path))
    receipts = [make_receipt() for _ in range(4)]
    receipts[2] = msgspec.structs.replace(receipts[2], **poison)
    ((index, reason),) = ledger.record(make_batch(receipts))
    assert index == 2
    assert "refused this row" in reason
    assert {receipt.id for receipt in list_receipts(path, 10)} == {receipts[n].id for n in (0, 1, 3)}
    assert read_receipt(path, receipts[3].id) == receipts[3], "its content is its own, not its neighbour's"
    ledger.close()


@pytest.mark.parametrize("poison", [{"duration_s": float("nan")}, {"cost_picodollars": 2**63}])
def test_an_opening_that_is_refused_does_not_take_others_with_it(path: Path, poison: dict[str, Any]) -> None:
    """Receipts and other openings of the batch are durable."""
    ledger = SqliteLedger(str(path))
    receipt, bad, good = make_receipt(), make_receipt(state="open", **poison), make_receipt(state="open")
    assert ledger.record(make_batch([receipt], [bad, good])) == []
    assert read_receipt(path, receipt.id) == receipt
    assert query(path, "SELECT id FROM openings") == [(good.id,)]
    ledger.close()


def test_an_open_stream_is_seen_and_ends_in_its_receipt(path: Path) -> None:
    """An opening reads as an open receipt with its request until the final one takes its place."""
    ledger = SqliteLedger(str(path))
    receipt = make_receipt(stream=True)
    opening = msgspec.structs.replace(receipt, state="open", answer=None)
    ledger.record(make_batch([], [opening]))
    assert read_receipt(path, receipt.id) == opening
    assert list_receipts(path, 5) == []
    ledger.record(make_batch([receipt]))
    assert read_receipt(path, receipt.id) == receipt
    short = make_receipt(stream=True)
    ledger.record(make_batch([short], [msgspec.structs.replace(short, state="open")]))
    assert query(path, "SELECT count(*) FROM openings") == [(0,)]
    ledger.close()


def test_openings_left_become_truncated_receipts(path: Path) -> None:
    """After a crash each stream that had begun has a receipt that says so; none is made twice."""
    ledger = SqliteLedger(str(path))
    left = [make_receipt(stream=True, state="open", answer=None, request=b"%d" % n) for n in range(120)]
    ledger.record(make_batch([], left))
    ledger.close()
    ledger = SqliteLedger(str(path))
    assert ledger.recover() == 120
    assert ledger.recover() == 0
    ledger.close()
    found = read_receipt(path, left[-1].id)
    assert found == msgspec.structs.replace(left[-1], state="truncated", error="gateway_restarted")
    assert [receipt.id for receipt in list_receipts(path, 200)] == [receipt.id for receipt in reversed(left)]


def _is_text(path: Path) -> None:
    path.write_text("dear diary, " * 100)


def _is_anothers(path: Path) -> None:
    query(path, "CREATE TABLE places (url)")


def _has_anothers_mark(path: Path) -> None:
    query(path, "PRAGMA application_id = 12345")


def _is_newer(path: Path) -> None:
    SqliteLedger(str(path)).close()
    query(path, f"PRAGMA user_version = {VERSION + 1}")


def _is_damaged(path: Path) -> None:
    SqliteLedger(str(path)).close()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_is_text, "not a SQLite database"),
        (_is_anothers, "another application's"),
        (_has_anothers_mark, "another application's"),
        (_is_newer, "newer Upstack"),
        (_is_damaged, "damaged"),
        (Path.mkdir, "folder"),
    ],
)
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(path: Path, make: Any, says: str) -> None:
    """To write and to read: the message names the path and what to do."""
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LedgerError, match=says) as writing:
        SqliteLedger(str(path))
    with pytest.raises(LedgerError) as looking:
        read_receipt(path, "rcpt_1")
    with pytest.raises(LedgerError) as listing:
        list_receipts(path, 1)
    assert all(str(path) in caught.value.message for caught in (writing, looking, listing))
    assert before is None or path.read_bytes() == before


def test_a_missing_folder_or_file_is_named(path: Path) -> None:
    """To write, the folder must be there; to read, the file."""
    with pytest.raises(LedgerError, match="no folder"):
        SqliteLedger(str(path / "deeper" / "upstack.db"))
    with pytest.raises(LedgerError, match="no ledger"):
        read_receipt(path, "rcpt_1")
    path.touch()
    with pytest.raises(LedgerError, match="no receipts yet"):
        list_receipts(path, 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only files")
def test_a_read_only_file_is_refused_at_once(path: Path) -> None:
    """Not at the first receipt."""
    SqliteLedger(str(path)).close()
    path.chmod(0o400)
    with pytest.raises(LedgerError, match="read-only"):
        SqliteLedger(str(path))


def test_a_ledger_locked_by_another_program_fails_the_batch_and_works_after(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is refused as a whole with what to do, and the next one goes in."""
    monkeypatch.setattr("upstack.core.store.sqlite._BUSY_S", 0.05)
    ledger = SqliteLedger(str(path))
    receipt = make_receipt()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ((index, reason),) = ledger.record(make_batch([receipt]))
        assert index == WHOLE_BATCH
        assert "locked by another program" in reason
        other.execute("ROLLBACK")
    assert ledger.record(make_batch([receipt])) == []
    ledger.close()


def test_pages_of_receipts_come_newest_first_without_contents(path: Path) -> None:
    """`before` takes up where the last page ended."""
    ledger = SqliteLedger(str(path))
    receipts = [make_receipt() for _ in range(7)]
    ledger.record(make_batch(receipts))
    bare = [msgspec.structs.replace(receipt, request=None, answer=None, subject=None) for receipt in reversed(receipts)]
    assert list_receipts(path, 3) == bare[:3]
    assert list_receipts(path, 3, before=bare[2].id) == bare[3:6]
    assert list_receipts(path, 3, before=bare[6].id) == []
    assert read_receipt(path, "rcpt_unknown") is None
    ledger.close()


def test_an_id_is_found_by_an_index(path: Path) -> None:
    """Neither finished nor open receipts are looked for one by one."""
    SqliteLedger(str(path)).close()
    for sql in (reading._FINISHED, reading._OPEN, reading._BEFORE.replace("LIMIT ?", "")):
        plan = " ".join(row[-1] for row in query(path, f"EXPLAIN QUERY PLAN {sql}", "rcpt_1"))
        assert "INDEX sqlite_autoindex" in plan or "USING PRIMARY KEY (id=?)" in plan
        assert "SCAN" not in plan


def test_a_folder_that_takes_no_file_is_not_said_to_be_missing(tmp_path: Path) -> None:
    """Only a folder that is really absent is called so; else there are the system's own words."""
    with pytest.raises(LedgerError, match=f"there is no folder {tmp_path}/none"):
        SqliteLedger(str(tmp_path / "none" / "x.db"))
    with pytest.raises(LedgerError, match=r"/proc/x\.db cannot be opened: No such file or directory; check its folder"):
        SqliteLedger("/proc/x.db")
