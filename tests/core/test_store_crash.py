"""Kills at random moments: whatever was acknowledged is in the ledger, once, and the ledger is whole."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import uvloop

from upstack.core.store.client import LedgerClient
from upstack.testing.receipts import make_receipt

KILLS = [12, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(600)])]
OPENINGS = 3


def gateway(path: str, acknowledged: str) -> None:
    """Record without end, 16 at a time, in a process of its own; note in a file each id that was acknowledged."""
    log = os.open(acknowledged, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def main() -> None:
        client = LedgerClient(path)
        await client.start()

        def record() -> None:
            receipt = make_receipt(created_at=time.time(), request=b"x" * random.randrange(5000))

            def done(error: object) -> None:
                if error is None:  # it may be refused: five writers killed before they were ready are enough
                    os.write(log, f"{receipt.id}\n".encode())
                loop.call_later(random.random() / 1000, record)

            client.append(receipt, done)

        loop = asyncio.get_running_loop()
        for _ in range(OPENINGS):
            client.open(make_receipt(state="open", stream=True), None)
        for _ in range(16):
            record()
        print(client.writer, flush=True)  # noqa: T201 - its parent reads it
        await asyncio.Event().wait()

    uvloop.run(main())


def start_gateway(path: Path, acknowledged: Path) -> tuple[subprocess.Popen[str], int]:
    """Start one, and return it with its writer's process id once it records."""
    code = f"from {__name__} import gateway; gateway({str(path)!r}, {str(acknowledged)!r})"
    folders = [str(Path(__file__).parent.parent.parent), *filter(None, sys.path)]
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def check(path: Path, acknowledged: Path) -> int:
    """Start once more, compare the ledger with what was acknowledged, and return how many receipts that were."""

    async def restart() -> None:
        client = LedgerClient(path)
        await client.start()  # waits until the writer left behind has ended
        await client.close()

    uvloop.run(restart())
    lines = acknowledged.read_text().split("\n")[:-1]  # the last may be half a line
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        found = {row[0] for row in database.execute("SELECT id FROM receipts")}
        assert database.execute("SELECT count(*) FROM receipts").fetchone() == (len(found),)
        assert database.execute(
            "SELECT count(*) FROM receipts LEFT JOIN contents ON receipt_seq = seq WHERE request IS NULL"
        ).fetchone() == (0,)
    assert set(lines) <= found
    return len(lines)


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_gateway_loses_nothing_that_was_acknowledged(tmp_path: Path, kills: int) -> None:
    """The writer ends by itself, the next gateway starts over the same file and truncates the streams left open."""
    path, acknowledged = tmp_path / "upstack.db", tmp_path / "acknowledged"
    for _ in range(kills):
        process, writer = start_gateway(path, acknowledged)
        time.sleep(random.random() * 0.1)
        if random.random() < 0.3:
            os.kill(writer, signal.SIGKILL)  # both at once
        process.kill()
        process.communicate()
    assert check(path, acknowledged) > kills
    with closing(sqlite3.connect(path)) as database:
        (truncated,) = database.execute("SELECT count(*) FROM receipts WHERE error = 'gateway_restarted'").fetchone()
        assert 0 < truncated <= kills * OPENINGS
        assert database.execute("SELECT count(*) FROM openings").fetchone() == (0,)


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_writer_loses_nothing_and_doubles_nothing(tmp_path: Path, kills: int) -> None:
    """One gateway goes on over many writers."""
    path, acknowledged = tmp_path / "upstack.db", tmp_path / "acknowledged"
    process, writer = start_gateway(path, acknowledged)
    for _ in range(kills):
        os.kill(writer, signal.SIGKILL)
        before = writer
        while writer == before:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            writer = next((int(child) for child in children if int(child) != before), before)
            time.sleep(0.001)
        time.sleep(random.random() * 0.2)
    assert process.poll() is None
    process.kill()
    process.communicate()
    assert check(path, acknowledged) > kills
