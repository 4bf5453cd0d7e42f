"""Whole ledgers out and in again: both databases, both ways, with the hashes they had."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from tests.postgres import PostgresServer
from upstack.application.data.archive import MANIFEST, Archive, Manifest
from upstack.application.data.exporting import export
from upstack.core.errors import LedgerError, RequestError
from upstack.core.store.engine import transaction
from upstack.core.store.reading import spend_sums
from upstack.core.store.tables import checkpoints, outcome_contents, outcomes, tombstones
from upstack.core.store.transfer import TABLES, fill, snapshot
from upstack.core.store.verify import verify
from upstack.testing.receipts import BARE, make_receipt
from upstack.testing.store_checks import noted, opened, recorded

NOW = 1_800_000_000.0


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger of each kind with something in every table."""
    if request.param == "sqlite":
        made = str(tmp_path / "upstack.db")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        made = server.new_ledger()
    asyncio.run(record(made))
    return made


@pytest.fixture(params=["sqlite", "postgres"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty ledger of each kind."""
    if request.param == "sqlite":
        return str(tmp_path / "other.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


async def record(place: str) -> None:
    """Receipts with texts, bytes, backslashes and nothing in them, and an open stream."""
    contents: list[dict[str, Any]] = [
        {},
        BARE,
        {"request": b"\xff\xfe not text", "answer": b"a\0b \\x41 \\\\"},
        {"request": b'{"base64": "QQ=="}', "answer": b"", "first_byte_s": 0.1 + 0.2, "cost_picodollars": 2**62},
    ]
    async with opened(place) as ledger:
        assert await recorded(ledger, *(make_receipt(**each) for each in contents)) == [None] * 4
        await noted(ledger, make_receipt(state="open"))
    moment = "2026-01-31T00:00:00.000000Z"
    signed = {"id": "a", "created_at": moment, "signer": "s", "signature": "t"}
    with transaction(place, write=True) as database:
        told = {"seq": 2**45, "id": "o", "created_at": moment, "observed_at": moment, "name": "ok", "source": "me"}
        told |= {"score": 0.25, "withdrawn": 0, "key": "", "idempotency_key": "k", "hash": "h"}
        database.execute(outcomes.insert(), told)
        database.execute(outcome_contents.insert(), {"outcome_seq": 2**45, "comment": b"\xff", "salt": b"s" * 16})
        database.execute(checkpoints.insert(), signed | {"chain": 0, "seq": 1, "hash": "h"})
        gone = {"kind": "contents", "first_seq": 9, "last_seq": 9, "removed": 1, "why": "retention"}
        database.execute(tombstones.insert(), signed | gone)


def filled(archive: Archive, place: str) -> int:
    """Fill a ledger from an archive."""
    return fill(place, ((table, archive.rows(table)) for table in TABLES), archive.manifest.chains)


def everything(place: str) -> dict[str, list[Any]]:
    """All rows, bytes as bytes."""

    def plain(row: tuple[Any, ...], table: sa.Table) -> list[Any]:
        return [
            value.encode() if isinstance(value, str) and isinstance(column.type, sa.LargeBinary) else value
            for column, value in zip(table.columns, row, strict=True)
        ]

    with snapshot(place) as ledger:
        return {table.name: [plain(row, table) for row in ledger.rows(table)] for table in TABLES}


def test_a_ledger_moves_with_every_value_and_goes_on(place: str, target: str, tmp_path: Path) -> None:
    """Each row of each table is there as it was, sums of spend too; the chain verifies and takes new receipts."""
    manifest = export(place, tmp_path / "out", "jsonl", NOW)
    archive = Archive(tmp_path / "out")
    archive.check()
    assert filled(archive, target) == sum(each.rows for each in manifest.files)
    assert everything(target) == everything(place)
    assert spend_sums(target, ("day", "task")) == spend_sums(place, ("day", "task"))
    again = export(target, tmp_path / "again", "jsonl", NOW)
    assert [each.sha256 for each in again.files] == [each.sha256 for each in manifest.files]

    async def more() -> None:
        async with opened(target) as ledger:
            assert await recorded(ledger, make_receipt()) == [None]

    asyncio.run(more())
    found = [each for each in verify(target).findings if each.chain == 0 and "is signed by s" not in each.what]
    assert (found, verify(target).receipts) == ([], 6)  # the open stream is a receipt now


def test_a_ledger_that_is_not_empty_is_not_filled(place: str, tmp_path: Path) -> None:
    """It stays as it was."""
    export(place, tmp_path / "out", "jsonl", NOW)
    before = everything(place)
    with pytest.raises(LedgerError, match="not empty"):
        filled(Archive(tmp_path / "out"), place)
    assert everything(place) == before


def test_a_ledger_that_is_written_is_not_filled(target: str, tmp_path: Path) -> None:
    """A gateway that holds it, empty as it is, would go on with a chain that is gone."""
    source = str(tmp_path / "source.db")
    asyncio.run(record(source))
    export(source, tmp_path / "out", "jsonl", NOW)

    async def main() -> None:
        async with opened(target):
            with pytest.raises(LedgerError, match=r"in use|being written"):
                filled(Archive(tmp_path / "out"), target)

    asyncio.run(main())
    assert verify(target).receipts == 0


def test_an_export_is_one_moment_of_a_ledger_that_is_written(tmp_path: Path) -> None:
    """Every receipt has its content and its sum, and the chain ends where the manifest says."""
    place = str(tmp_path / "upstack.db")

    async def main() -> None:
        async with opened(place) as ledger:
            await recorded(ledger, *(make_receipt() for _ in range(100)))
            task = asyncio.create_task(asyncio.to_thread(export, place, tmp_path / "out", "jsonl", NOW))
            while not task.done():
                await recorded(ledger, make_receipt())
            await task

    asyncio.run(main())
    archive = Archive(tmp_path / "out")
    archive.check()
    filled(archive, str(tmp_path / "other.db"))
    done = verify(str(tmp_path / "other.db"))
    assert done.found == 0
    assert done.contents == done.receipts >= 100


def test_parquet_has_the_same_rows(tmp_path: Path) -> None:
    """Texts, numbers and bytes are what they were."""
    place = str(tmp_path / "upstack.db")
    asyncio.run(record(place))
    manifest = export(place, tmp_path / "out", "both", NOW)
    assert {each.format for each in manifest.files} == {"jsonl", "parquet"}
    with duckdb.connect() as database:
        for name, rows in everything(place).items():
            found = database.execute(f"SELECT * FROM '{tmp_path}/out/{name}.parquet'").fetchall()
            assert [list(row) for row in found] == rows, name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export."""
    asyncio.run(record(str(tmp_path / "upstack.db")))
    export(str(tmp_path / "upstack.db"), tmp_path / "out", "jsonl", NOW)
    return tmp_path / "out"


def refused(folder: Path, words: str) -> None:
    """Assert that nothing of it gets into a ledger, and that the error has these words."""
    target = str(folder.parent / "target.db")

    def use() -> None:
        archive = Archive(folder)
        archive.check()
        filled(archive, target)

    with pytest.raises(RequestError, match=words):
        use()
    if Path(target).exists():
        with snapshot(target) as ledger:
            assert not any(list(ledger.rows(table)) for table in TABLES if table.name != "chains")


def resign(folder: Path, change: Any) -> None:
    """Change a manifest as somebody would who knows how its hash is made."""
    said = json.loads((folder / MANIFEST).read_bytes())
    change(said)
    import msgspec

    manifest = msgspec.convert(said, Manifest)
    said["sha256"] = manifest.digest()
    (folder / MANIFEST).write_text(json.dumps(said))


def test_a_changed_file_is_refused(folder: Path) -> None:
    """By its hash, its length or its absence, before anything is written."""
    path = folder / "receipts.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"dispatch", b"dispotch", 1))
    refused(folder, "receipts.jsonl: its sha256")
    path.write_bytes(whole[:-5])
    refused(folder, "receipts.jsonl: not .* bytes")
    path.unlink()
    refused(folder, "receipts.jsonl: cannot be read: No such file")
    path.symlink_to("/etc/passwd")
    refused(folder, "link")


def test_a_changed_manifest_is_refused(folder: Path) -> None:
    """Be it edited, of another version, or one that names a file elsewhere."""
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"rows": 4', '"rows": 3', 1))
    refused(folder, "its sha256 is not that of what it says")
    for junk in ("", "[]", "\xff", "[" * 100_000, text.replace('"format"', '"farmat"')):
        (folder / MANIFEST).write_text(junk)
        refused(folder, MANIFEST)
    (folder / MANIFEST).write_text(text)
    resign(folder, lambda said: said["files"][0].update(name="../chains.jsonl"))
    refused(folder, "names a file")
    (folder / MANIFEST).write_text(text)
    resign(folder, lambda said: said.update(ledger_version=99))
    refused(folder, "of ledger version 99")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row.update(extra=1), "line 2: there is an unknown column 'extra'"),
        (lambda row: row.pop("why"), "line 2: there is no column 'why'"),
        (lambda row: row.update(status="200"), "line 2: `status` is of a wrong type"),
        (lambda row: row.update(why={"base64": "QQ=="}), "line 2: `why` is of a wrong type"),
    ],
)
def test_a_row_that_is_none_of_the_table_is_named(folder: Path, change: Any, words: str) -> None:
    """Its file, its line and its column, also where all hashes were made anew."""
    import hashlib

    path = folder / "receipts.jsonl"
    lines = path.read_bytes().splitlines()
    row = json.loads(lines[1])
    change(row)
    lines[1] = json.dumps(row).encode()
    path.write_bytes(b"\n".join(lines) + b"\n")

    def follow(said: Any) -> None:
        (file,) = (each for each in said["files"] if each["table"] == "receipts")
        file.update(bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest())

    resign(folder, follow)
    refused(folder, words)


def test_an_export_overwrites_nothing(folder: Path, tmp_path: Path) -> None:
    """Neither a folder nor what a link leads to; and what fails leaves nothing behind."""
    place = str(tmp_path / "upstack.db")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for taken in (folder, tmp_path / "link", Path(place)):
        with pytest.raises(RequestError, match="overwrites nothing"):
            export(place, taken, "jsonl", NOW)
    with pytest.raises(RequestError, match="cannot be made"):
        export(place, tmp_path / "no" / "such", "jsonl", NOW)
    with pytest.raises(LedgerError):
        export(str(tmp_path / "nothing.db"), tmp_path / "new", "jsonl", NOW)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "new"))]
