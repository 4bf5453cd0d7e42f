"""The gateway's side of the ledger and its writer, as two processes."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from upstack.core.errors import LedgerError
from upstack.core.store.base import Ledger
from upstack.core.store.client import LedgerClient
from upstack.core.store.reading import list_receipts, read_receipt
from upstack.core.types import Receipt
from upstack.testing.receipts import BARE, make_receipt


@asynccontextmanager
async def started(path: Path, **options: Any) -> AsyncIterator[LedgerClient]:
    """A client with its writer running."""
    client = LedgerClient(path, **options)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def record(ledger: Ledger, receipts: list[Receipt]) -> list[LedgerError | None]:
    """Append receipts in one tick and wait for all of them."""
    loop = asyncio.get_running_loop()
    answers = [loop.create_future() for _ in receipts]
    for receipt, answer in zip(receipts, answers, strict=True):
        ledger.append(receipt, answer.set_result)
    return await asyncio.wait_for(asyncio.gather(*answers), 20)


async def written(path: Path, receipt_id: str) -> Receipt:
    """Wait until a receipt is in the file."""
    while (found := read_receipt(path, receipt_id)) is None:
        await asyncio.sleep(0.01)
    return found


def writer_of(client: LedgerClient) -> int:
    """The process id of the writer."""
    assert client.writer is not None
    return client.writer


@pytest.fixture(params=[uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    """Either event loop."""
    runner: Callable[[Awaitable[None]], None] = request.param
    return runner


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a ledger may be made."""
    return tmp_path / "upstack.db"


def test_what_was_answered_for_is_in_the_file(path: Path, run: Any) -> None:
    """Receipts of many ticks are durable when their callbacks come, and each comes once, later than the append."""

    async def main() -> None:
        async with started(path) as client:
            receipts = [make_receipt(model=f"m{number}") for number in range(300)]
            at_once: list[object] = []
            client.append(make_receipt(), at_once.append)
            assert at_once == []
            for begin in range(0, 300, 30):
                assert await record(client, receipts[begin : begin + 30]) == [None] * 30
                assert {receipt.id for receipt in receipts[: begin + 30]} <= {
                    receipt.id for receipt in list_receipts(path, 400)
                }
            assert at_once == [None]
            assert (client.written, client.dropped, client.queue_bytes) == (301, 0, 0)
            assert await client.get(receipts[7].id) == receipts[7]
            assert await client.get("rcpt_unknown") is None
        assert len(list_receipts(path, 400)) == 301

    run(main())


def test_receipts_of_one_tick_share_a_commit(path: Path, run: Any) -> None:
    """The first ones go together, and what comes while they are written goes together next."""

    async def main() -> None:
        async with started(path) as client:
            answers = [record(client, [make_receipt()]) for _ in range(40)]
            await asyncio.gather(*answers)
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM receipts").fetchone() == (40,)

    run(main())


def test_large_and_bare_receipts_go_through(path: Path, run: Any) -> None:
    """A batch far larger than the socket's buffer arrives whole, in order, with those around it."""

    async def main() -> None:
        async with started(path) as client:
            receipts = [
                make_receipt(),
                make_receipt(request=os.urandom(5_000_000), answer=b"x" * 3_000_000),
                make_receipt(**BARE),
                *(make_receipt(request=b"y" * 10_000) for _ in range(300)),
            ]
            assert await record(client, receipts) == [None] * len(receipts)
            assert [receipt.id for receipt in list_receipts(path, 400)] == [receipt.id for receipt in receipts[::-1]]
            assert await client.get(receipts[1].id) == receipts[1]

    run(main())


def test_a_receipt_that_waits_can_be_read(path: Path) -> None:
    """Whoever has the id finds the receipt, also before it is in the file, finished or open."""

    async def main() -> None:
        async with started(path) as client:
            done, begun = make_receipt(), make_receipt(state="open", stream=True, answer=None)
            client.append(done, None)
            client.open(begun, None)
            assert await client.get(done.id) == done
            assert await client.get(begun.id) == begun
            await record(client, [make_receipt()])
            assert await client.get(done.id) == done
            assert await client.get(begun.id) == begun

    uvloop.run(main())


def test_closing_writes_what_waits(path: Path, run: Any) -> None:
    """Also receipts that nobody waits for; afterwards a receipt is refused and the writer is gone."""

    async def main() -> None:
        client = LedgerClient(path)
        await client.start()
        writer = writer_of(client)
        for _ in range(500):
            client.append(make_receipt(), None)
        await client.close()
        assert client.written == 500
        with pytest.raises(ProcessLookupError):
            os.kill(writer, 0)
        (error,) = await record(client, [make_receipt()])
        assert error is not None
        assert error.code == "ledger_closed"
        await client.close()

    run(main())
    assert not Path(f"{path}-wal").exists(), "the file alone is the ledger"
    assert len(list_receipts(path, 1000)) == 500


def test_a_full_queue_is_busy_and_drops_what_nobody_waits_for(path: Path) -> None:
    """It is bounded in bytes by whoever asks before; a receipt that is waited for was paid for, and is kept."""

    async def main() -> None:
        async with started(path, limit_bytes=100_000) as client:
            writer = writer_of(client)
            os.kill(writer, signal.SIGSTOP)
            waiting = [make_receipt(request=b"x" * 30_000) for _ in range(4)]
            pending = asyncio.ensure_future(record(client, waiting))
            await asyncio.sleep(0.01)
            assert client.busy
            assert 100_000 <= client.queue_bytes < 140_000
            late = asyncio.ensure_future(record(client, [make_receipt()]))
            await asyncio.sleep(0.01)
            client.append(make_receipt(), None)
            client.open(make_receipt(state="open"), None)
            assert client.dropped == 1
            os.kill(writer, signal.SIGCONT)
            assert await pending == [None] * 4
            assert await late == [None]
            assert not client.busy
            assert await record(client, [make_receipt()]) == [None]
            assert (client.written, client.dropped) == (6, 1)

    uvloop.run(main())


def test_one_bad_receipt_fails_alone(path: Path, run: Any) -> None:
    """Numbers that no database holds are told to whom they belong; odd text is kept in another form."""

    async def main() -> None:
        async with started(path) as client:
            receipts = [
                make_receipt(),
                make_receipt(created_at=float("nan")),
                make_receipt(status=2**70),
                make_receipt(cost_picodollars=2**63),
                make_receipt(duration_s=float("nan")),
                make_receipt(model="lone \udc80"),
                make_receipt(why="nul \0", request=b"\xff\0"),
            ]
            answers = await record(client, receipts)
            assert [error is None for error in answers] == [True, False, False, False, False, True, True]
            client.append(make_receipt(status=2**70), None)
            client.append(make_receipt(duration_s=float("nan")), None)
            await record(client, [make_receipt()])
            assert client.dropped == 6
            assert await client.get(receipts[6].id) == receipts[6]
            odd = await client.get(receipts[5].id)
            assert odd is not None
            assert odd.model == r"lone \udc80"
        assert client.written == 4

    run(main())


def test_a_callback_that_fails_does_not_keep_others_from_theirs(path: Path) -> None:
    """The fault goes to the loop's handler."""

    async def main() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
        async with started(path) as client:
            client.append(make_receipt(), lambda _: 1 / 0)  # type: ignore[arg-type]
            assert await record(client, [make_receipt()]) == [None]
            assert [type(fault) for fault in faults] == [ZeroDivisionError]

    uvloop.run(main())


def test_a_writer_that_is_killed_is_replaced_and_nothing_is_lost(path: Path, run: Any) -> None:
    """What was not acknowledged is sent again, what was committed is not doubled."""

    async def main() -> None:
        async with started(path) as client:
            begun = make_receipt(state="open", stream=True)
            client.open(begun, None)
            await record(client, [make_receipt()])
            first = writer_of(client)
            receipts = [make_receipt() for _ in range(200)]
            pending = asyncio.ensure_future(record(client, receipts))
            await asyncio.sleep(0)
            os.kill(first, signal.SIGKILL)
            assert await pending == [None] * 200
            assert writer_of(client) != first
            found = await client.get(begun.id)
            assert found is not None
            assert found.state == "open", "the gateway lives, and so does its stream"
        kept = {receipt.id: receipt.state for receipt in list_receipts(path, 400)}
        assert len(kept) == 202
        assert kept[begun.id] == "truncated", "now the gateway is gone"

    run(main())
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM receipts").fetchone() == (202,)


def test_a_terminals_signals_do_not_end_the_writer(path: Path) -> None:
    """Ctrl-C and a service manager reach every process of the group; the writer ends with the gateway alone."""

    async def main() -> None:
        async with started(path) as client:
            writer = writer_of(client)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(writer, number)
            assert await record(client, [make_receipt()]) == [None]
            assert writer_of(client) == writer
            assert os.getsid(writer) != os.getsid(0)

    uvloop.run(main())


def test_a_ledger_in_use_is_refused_and_free_again_after(path: Path) -> None:
    """Two gateways never write one file; the second is told what to do."""

    async def main() -> None:
        async with started(path) as first:
            with pytest.raises(LedgerError, match=rf"in use by another gateway \(.* process {writer_of(first)}\)"):
                await LedgerClient(path, lock_wait=0.2).start()
            assert await record(first, [make_receipt()]) == [None]
        async with started(path, lock_wait=0.2) as second:
            assert await record(second, [make_receipt()]) == [None]

    uvloop.run(main())


def test_a_ledger_is_in_use_also_when_all_its_files_were_deleted(path: Path) -> None:
    """Its writer takes the lock anew with its next commit; where another came before that, it says so."""

    async def main() -> None:
        async with started(path) as client:
            assert await record(client, [make_receipt()]) == [None]
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            assert await record(client, [make_receipt()]) == [None]
            with pytest.raises(LedgerError, match="in use by another gateway"):
                await LedgerClient(path, lock_wait=0.05).start()
            for file in path.parent.glob(f"{path.name}*"):
                file.unlink()
            async with started(path) as second:
                [refused] = await record(client, [make_receipt()])
                assert refused is not None
                assert "in use by another gateway" in refused.message
                assert await record(second, [make_receipt()]) == [None]

    asyncio.run(main())


def test_a_gateway_waits_for_the_writer_of_one_that_has_just_ended(path: Path) -> None:
    """A restart does not fail because the last receipts are still being written."""

    async def main() -> None:
        first = LedgerClient(path)
        await first.start()
        starting = asyncio.ensure_future(LedgerClient.start(second := LedgerClient(path)))
        await asyncio.sleep(0.3)
        assert not starting.done()
        await first.close()
        await asyncio.wait_for(starting, 5)
        assert await record(second, [make_receipt()]) == [None]
        await second.close()

    uvloop.run(main())


@pytest.mark.parametrize("content", [b"not a database, " * 100, None])
def test_start_says_why_a_ledger_cannot_be_used(path: Path, content: bytes | None) -> None:
    """A foreign file or a missing folder: the message names the path; nothing keeps running."""
    if content is None:
        path = path / "deeper" / "upstack.db"
    else:
        path.write_bytes(content)

    async def main() -> None:
        client = LedgerClient(path)
        with pytest.raises(LedgerError) as caught:
            await client.start()
        assert str(path) in caught.value.message
        assert "server.ledger" in caught.value.message
        await client.close()

    uvloop.run(main())


def test_receipts_fail_where_the_ledger_cannot_be_opened_again(path: Path) -> None:
    """When its folder has gone with the writer, callers are told instead of waiting for ever."""
    path = path.parent / "folder" / "upstack.db"
    path.parent.mkdir()

    async def main() -> None:
        async with started(path) as client:
            path.parent.rename(path.parent.parent / "away")
            os.kill(writer_of(client), signal.SIGKILL)
            (error,) = await record(client, [make_receipt()])
            assert error is not None
            assert str(path) in error.message
            path.parent.mkdir()
            receipt = make_receipt()
            assert await record(client, [receipt]) == [None]
            assert read_receipt(path, receipt.id) == receipt

    uvloop.run(main())


def test_an_open_stream_becomes_its_receipt(path: Path) -> None:
    """Opened, read as open, finished: one receipt, no opening left."""

    async def main() -> None:
        async with started(path) as client:
            receipt = make_receipt(stream=True)
            known = asyncio.get_running_loop().create_future()
            client.open(msgspec.structs.replace(receipt, state="open", answer=None), known.set_result)
            assert await known is None
            found = read_receipt(path, receipt.id)
            assert found is not None
            assert found.state == "open"
            assert await record(client, [receipt]) == [None]
            assert read_receipt(path, receipt.id) == receipt
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM openings").fetchone() == (0,)

    uvloop.run(main())


def remove(path: Path, *suffixes: str) -> None:
    """Delete files of a ledger."""
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()


def test_a_ledger_whose_file_is_deleted_goes_on_in_a_new_one(path: Path) -> None:
    """What is acknowledged after that is in the file that stands there, not in the one that is gone."""

    async def main() -> None:
        async with started(path) as client:
            assert await record(client, [make_receipt()]) == [None]
            remove(path, "", "-wal", "-shm")
            receipts = [make_receipt() for _ in range(3)]
            assert await record(client, receipts) == [None] * 3
            assert [receipt.id for receipt in list_receipts(path, 9)] == [receipt.id for receipt in receipts[::-1]]

    uvloop.run(main())


def test_a_ledger_that_is_replaced_takes_what_comes_after(path: Path) -> None:
    """A backup laid in its place while it is written is what receipts go to from then on."""

    async def main() -> None:
        old = make_receipt()
        async with started(path) as client:
            assert await record(client, [old]) == [None]
        backup = path.with_name("backup.db")
        shutil.copy(path, backup)
        async with started(path) as client:
            assert await record(client, [make_receipt()]) == [None]
            remove(path, "-wal", "-shm")
            backup.rename(path)
            new = make_receipt()
            assert await record(client, [new]) == [None]
        assert [receipt.id for receipt in list_receipts(path, 9)] == [new.id, old.id]

    uvloop.run(main())


def test_a_ledger_that_fails_says_so_until_it_can_write_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`failing` tells those who would ask for more; it looks by itself whether that is over.

    What was refused meanwhile is recorded then, as its caller saw it end: providers want their money all the same.
    """
    monkeypatch.setattr("upstack.core.store.client._LOOK_S", 0.05)

    async def main() -> None:
        async with started(path) as client:
            writer = writer_of(client)
            assert client.failing is None
            _, most = resource.prlimit(writer, resource.RLIMIT_FSIZE)
            resource.prlimit(writer, resource.RLIMIT_FSIZE, (0, most))
            answered, streamed = make_receipt(), make_receipt(stream=True)
            error, _ = await record(client, [answered, streamed])
            assert error is not None
            assert client.failing == error.message
            opening = asyncio.get_running_loop().create_future()
            client.open(make_receipt(state="open", stream=True), opening.set_result)
            assert await opening is not None
            await asyncio.sleep(0.2)
            assert client.failing is not None
            resource.prlimit(writer, resource.RLIMIT_FSIZE, (most, most))
            while client.failing is not None:
                await asyncio.sleep(0.01)
            assert writer_of(client) == writer
            assert await client.get(answered.id) == await written(path, answered.id)
            while client.queue_bytes:
                await asyncio.sleep(0.01)
            assert (client.written, client.dropped) == (2, 0)
        refused, cut = read_receipt(path, answered.id), read_receipt(path, streamed.id)
        assert refused == msgspec.structs.replace(answered, state="failed", status=503, error="ledger_unavailable")
        assert cut == msgspec.structs.replace(streamed, state="truncated", error="ledger_unavailable")

    uvloop.run(main())


def test_a_writer_that_hangs_is_noticed_and_replaced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the ledger is failing, then there is another writer, and what waited is recorded."""
    monkeypatch.setattr("upstack.core.store.client._LOOK_S", 0.02)
    monkeypatch.setattr("upstack.core.store.client._SLOW_S", 0.1)
    monkeypatch.setattr("upstack.core.store.client._STUCK_S", 0.5)

    async def main() -> None:
        async with started(path) as client:
            hung = writer_of(client)
            os.kill(hung, signal.SIGSTOP)
            pending = asyncio.ensure_future(record(client, [make_receipt()]))
            while client.failing is None:
                await asyncio.sleep(0.01)
            assert "has not answered" in client.failing
            assert await pending == [None]
            assert writer_of(client) != hung
            assert client.failing is None

    uvloop.run(main())


def test_a_ledger_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that SQLite knows as memory: what was acknowledged lies in the file."""
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with started(Path(":memory:")) as client:
            assert await record(client, [make_receipt()]) == [None]

    asyncio.run(main())
    assert len(list_receipts(":memory:", 9)) == 1
    assert (tmp_path / ":memory:").stat().st_size > 0
