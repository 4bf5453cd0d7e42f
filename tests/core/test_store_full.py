"""A disk that is full: receipts are refused with a reason, nothing is damaged, and all goes on when there is room."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import uvloop

from tests.core.test_store_client import record, started, writer_of
from upstack.core.errors import LedgerError
from upstack.core.store.client import LedgerClient
from upstack.core.store.reading import list_receipts
from upstack.core.store.sqlite import SqliteLedger
from upstack.core.types import Receipt
from upstack.testing.receipts import make_receipt

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; skipped where none may be mounted."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], capture_output=True, check=False
    )
    if not made or made.returncode:
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill(client: LedgerClient) -> tuple[list[Receipt], LedgerError]:
    """Record until it is refused: what was recorded, and the refusal."""
    recorded: list[Receipt] = []
    for _ in range(5000):
        receipt = make_receipt(request=b"x" * 5000)
        (error,) = await record(client, [receipt])
        if error is not None:
            return recorded, error
        recorded.append(receipt)
    pytest.fail("the disk was never full")


def check(path: Path, recorded: list[Receipt]) -> None:
    """All that was acknowledged is there, and the file is whole."""
    assert {receipt.id for receipt in recorded} <= {receipt.id for receipt in list_receipts(path, 20_000)}
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    """No restart is needed: the next receipt after room was made is recorded by the same writer."""
    path, ballast = small_disk / "upstack.db", small_disk / "ballast"
    ballast.write_bytes(bytes(1_000_000))

    async def main() -> None:
        async with started(path) as client:
            writer = writer_of(client)
            recorded, error = await fill(client)
            assert "disk is full" in error.message
            assert str(path) in error.message
            again, _ = await fill(client)
            ballast.unlink()
            more = [make_receipt() for _ in range(20)]
            assert await record(client, more) == [None] * 20
            assert writer_of(client) == writer
        check(path, recorded + again + more)

    uvloop.run(main())


@linux
def test_a_write_that_fails_refuses_and_recovers(tmp_path: Path) -> None:
    """The same where the writer may not let its files grow (`ulimit -f`), which needs no file system of its own."""
    path = tmp_path / "upstack.db"

    async def main() -> None:
        async with started(path) as client:
            writer = writer_of(client)
            _, most = resource.prlimit(writer, resource.RLIMIT_FSIZE)
            resource.prlimit(writer, resource.RLIMIT_FSIZE, (500_000, most))
            recorded, error = await fill(client)
            assert str(path) in error.message
            again, _ = await fill(client)
            resource.prlimit(writer, resource.RLIMIT_FSIZE, (most, most))
            more = [make_receipt() for _ in range(20)]
            assert await record(client, more) == [None] * 20
            assert writer_of(client) == writer
        check(path, recorded + again + more)

    uvloop.run(main())


def test_a_read_only_file_system_is_told_at_the_start(small_disk: Path) -> None:
    """Not at the first receipt; the message names the path."""
    path = small_disk / "upstack.db"

    SqliteLedger(str(path)).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(LedgerError, match="not writable") as caught:
        uvloop.run(LedgerClient(path).start())
    assert str(path) in caught.value.message


def test_a_gateway_does_not_start_over_a_full_disk(small_disk: Path) -> None:
    """It says why, and starts when there is room again."""
    path, ballast = small_disk / "upstack.db", small_disk / "ballast"
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(bytes(3_000_000))

    async def main() -> None:
        with pytest.raises(LedgerError, match="disk is full") as caught:
            await LedgerClient(path).start()
        assert str(path) in caught.value.message
        ballast.unlink()
        async with started(path) as client:
            assert await record(client, [make_receipt()]) == [None]

    uvloop.run(main())
