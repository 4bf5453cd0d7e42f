"""`upstack ledger`: what is done with a ledger as a whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from tests.cli.calling import call
from tests.postgres import PostgresServer, ask
from upstack.application.data.archive import Manifest
from upstack.core.store.rows import to_row
from upstack.core.store.writer import open_ledger
from upstack.testing import make_receipt

DAY = 86_400.0
NEW_YEAR = 1_798_761_600.0  # 2027-01-01


def fill(place: str) -> list[str]:
    """Record a receipt a day, from 1 to 5 January 2027; their ids."""
    receipts = [make_receipt(created_at=NEW_YEAR + day * DAY) for day in range(5)]
    ids = [f"rcpt_{int(receipt.created_at * 1000):012x}{receipt.id[17:]}" for receipt in receipts]
    ledger = open_ledger(place, 0.0)
    rows = [(ids[day], *to_row(receipt)[1:]) for day, receipt in enumerate(receipts)]
    assert ledger.record((rows, [(receipt.request, receipt.answer, None, False) for receipt in receipts], [], [])) == []
    ledger.close()
    return ids


def edit(path: Path, statement: str) -> None:
    """Change a file by hand."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


def test_a_whole_ledger_is_said_to_be_whole(tmp_path: Path) -> None:
    """Code 0 and one line; with --json the counts."""
    fill(str(tmp_path / "upstack.db"))
    done = call("ledger", "verify", cwd=tmp_path)
    assert done.code == 0
    assert done.out == "upstack.db is whole: 5 receipts and 5 contents in 1 chain, each as it was written\n"
    told = json.loads(call("ledger", "verify", "--json", cwd=tmp_path).out)
    assert (told["whole"], told["receipts"], told["findings"]) == (True, 5, [])


def test_one_value_edited_by_hand_is_named(tmp_path: Path) -> None:
    """Code 1, the receipt's id, and what the matter is."""
    ids = fill(str(tmp_path / "upstack.db"))
    edit(tmp_path / "upstack.db", "UPDATE receipts SET cost_picodollars = cost_picodollars - 1 WHERE seq = 3")
    done = call("ledger", "verify", cwd=tmp_path)
    assert done.code == 1
    assert ids[2] in done.out
    assert "edited" in done.out
    assert "NOT as it was written" in done.out
    told = json.loads(call("ledger", "verify", "--json", cwd=tmp_path).out)
    assert [finding["receipt"] for finding in told["findings"]] == [ids[2]]


@pytest.mark.parametrize(
    ("bounds", "receipts"),
    [
        (["--from", "2027-01-03"], 3),
        (["--to", "2027-01-03"], 2),
        (["--from", "2027-01-02T00:00", "--to", "2027-01-04T00:00Z"], 2),
        (["--from", "2027-01-01T01:00+01:00"], 5),
        (["--from", "2028-01-01"], 0),
    ],
)
def test_a_part_is_named_by_its_time(tmp_path: Path, bounds: list[str], receipts: int) -> None:
    """In UTC, unless it says otherwise."""
    fill(str(tmp_path / "upstack.db"))
    assert json.loads(call("ledger", "verify", *bounds, "--json", cwd=tmp_path).out)["receipts"] == receipts


def test_a_part_is_named_by_an_id(tmp_path: Path) -> None:
    """The first is looked at, the second is not."""
    ids = fill(str(tmp_path / "upstack.db"))
    done = call("ledger", "verify", "--from", ids[1], "--to", ids[3], "--json", cwd=tmp_path)
    assert json.loads(done.out)["receipts"] == 2


def test_what_is_no_time_and_what_is_no_ledger_is_said(tmp_path: Path) -> None:
    """One line, with the remedy."""
    call("ledger", "verify", "--from", "yesterday", cwd=tmp_path).failed(2, "yesterday", "2026-11-26T14:30")
    call("ledger", "verify", cwd=tmp_path).failed(1, "there is no ledger upstack.db")
    call("ledger", "verify", "--ledger", "mysql://x/y", cwd=tmp_path).failed(2, "postgresql://USER@HOST/DATABASE")
    call("ledger", "verify", "--ledger", "postgresql://u:pw123@h/d", cwd=tmp_path).failed(2, "env:NAME")
    call("ledger", "verify", "--ledger", "env:NO_SUCH", cwd=tmp_path).failed(2, "NO_SUCH is not set")


def test_a_database_is_named_by_a_variable_that_holds_its_url(tmp_path: Path, postgres: PostgresServer) -> None:
    """So that its password stands in no file and on no screen."""
    url = postgres.new_ledger()
    ids = fill(url)
    secret = url.replace("upstack@", "upstack:hunter2@")  # a server that trusts asks for no password
    done = call("ledger", "verify", "--ledger", "env:LEDGER", cwd=tmp_path, LEDGER=secret)
    assert done.code == 0
    assert "5 receipts" in done.out
    (tmp_path / "upstack.toml").write_text('[server]\nledger = "env:LEDGER"\n')
    why = call("why", "last", cwd=tmp_path, LEDGER=secret)
    assert ids[-1] in why.out
    doctor = call("doctor", "--offline", cwd=tmp_path, LEDGER=secret)
    assert ids[-1] in doctor.out
    assert "hunter2" not in done.out + done.err + why.out + why.err + doctor.out + doctor.err
    assert ask(url, "SELECT count(*) FROM receipts") == [(5,)]


def exported(folder: Path) -> Path:
    """Export a ledger with a signed tombstone and checkpoint; `key.pem` and `points.json` are beside it."""
    ids = fill(str(folder / "upstack.db"))
    (folder / "key.pem").write_text(call("ledger", "key", cwd=folder).out)
    assert call("ledger", "erase", "--receipt", ids[1], "--yes", cwd=folder).code == 0
    (folder / "points.json").write_text(call("ledger", "checkpoint", "--json", cwd=folder).out)
    assert call("export", "--everything", "out", cwd=folder).code == 0
    return folder / "out"


def forge(folder: Path) -> None:
    """Change a value of an export, and have its manifest say that it was always so."""
    path = folder / "receipts.jsonl"
    path.write_text(path.read_text().replace('"status":200', '"status":201', 1))
    said = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    files = [
        replace(each, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for each in said.files
        for data in [(folder / each.name).read_bytes()]
    ]
    said = replace(said, files=type(said.files)(files))
    (folder / "manifest.json").write_bytes(msgspec.json.encode(replace(said, sha256=said.digest())))


def test_an_outsider_verifies_an_export(tmp_path: Path) -> None:
    """With the public key and the checkpoints alone; without the key what is signed cannot be believed."""
    exported(tmp_path)
    away = tmp_path / "away"
    away.mkdir()
    for name in ("out", "key.pem", "points.json"):
        (tmp_path / name).rename(away / name)
    given = ("--public-key", "key.pem", "--checkpoint", "points.json")
    done = call("ledger", "verify", "out", *given, cwd=away)
    assert done.code == 0
    assert "Removed on purpose, and signed for: 1 content:" in done.out
    assert "out is whole: 5 receipts and 4 contents in 1 chain, 1 checkpoint" in done.out
    blind = call("ledger", "verify", "out", cwd=away)
    assert blind.code == 1
    assert "public key is not known here" in blind.out
    call("ledger", "verify", "out", "--ledger", "x.db", cwd=away).failed(2, "not both")
    call("ledger", "verify", "points.json", cwd=away).failed(1, "manifest.json")
    forge(away / "out")
    forged = call("ledger", "verify", "out", *given, cwd=away)
    assert forged.code == 1
    assert "chain 0, position 1" in forged.out
    assert "edited" in forged.out
    assert sorted(path.name for path in away.iterdir()) == ["key.pem", "out", "points.json"]


def test_an_import_of_which_nothing_can_be_taken_fails(tmp_path: Path) -> None:
    """Bad lines among good ones are only named."""
    bad, good = "{", '{"id": "a", "call_type": "acompletion", "model": "m", "startTime": "2026-11-01T00:00:00Z"}'
    (tmp_path / "log.jsonl").write_text(f"{bad}\n")
    done = call("import", "log.jsonl", "--format", "litellm", cwd=tmp_path)
    assert done.code == 1
    assert "Read as litellm: 1 line." in done.out
    assert "line 1: " in done.out
    (tmp_path / "log.jsonl").write_text(f"{bad}\n{good}\n")
    for words in ("1 receipt added, 0 already there", "0 receipts added, 1 already there"):
        done = call("import", "log.jsonl", "--format", "litellm", cwd=tmp_path)
        assert done.code == 0, done.out
        assert words in done.out


def test_an_import_whose_keystore_is_not_there_says_so(tmp_path: Path, postgres: PostgresServer) -> None:
    """What is signed needs it, and it is in no export: once it is there, all is as it was."""
    exported(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    url = postgres.new_ledger()
    into = ("import", "../out", "--ledger", "env:LEDGER")
    call(*into, cwd=here, LEDGER=url).failed(1, "the rows are in", "not at upstack.keys", "server.keystore")
    shutil.copy(tmp_path / "upstack.db.keys", here / "upstack.keys")
    verified = call("ledger", "verify", "--ledger", "env:LEDGER", cwd=here, LEDGER=url)
    assert (verified.code, "is whole: 5 receipts and 4 contents" in verified.out) == (0, True)
    again = call(*into, cwd=here, LEDGER=postgres.new_ledger())
    assert (again.code, "5 receipts and 4 contents, each as it was written" in again.out) == (0, True)
