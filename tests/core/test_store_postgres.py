"""What only a ledger in PostgreSQL has to stand: several hosts, a server that goes away, URLs with secrets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.postgres import PostgresServer, ask
from upstack.core.errors import LedgerError
from upstack.core.store.client import LedgerClient
from upstack.core.store.reading import list_receipts, read_receipt
from upstack.core.store.rows import to_row
from upstack.core.store.verify import verify
from upstack.core.store.writer import open_ledger
from upstack.testing.receipts import make_receipt
from upstack.testing.store_checks import noted, opened, recorded


def test_two_hosts_write_at_once_and_each_has_a_chain(postgres: PostgresServer) -> None:
    """A chain that its writer left is taken up by the next, so that there are never more than there were writers."""
    url = postgres.new_ledger()

    async def main() -> None:
        async with opened(url) as first, opened(url) as second:
            for _ in range(10):
                both = [recorded(ledger, *(make_receipt() for _ in range(5))) for ledger in (first, second)]
                assert await asyncio.gather(*both) == [[None] * 5] * 2
        async with opened(url) as third:
            await recorded(third, make_receipt())

    asyncio.run(main())
    done = verify(url)
    assert (done.chains, done.receipts, done.found) == (2, 101, 0)
    assert len(list_receipts(url, 200)) == 101
    assert ask(url, "SELECT seq >> 40, count(*) FROM receipts GROUP BY 1 ORDER BY 1") == [(0, 51), (1, 50)]


def test_a_host_that_comes_back_closes_its_own_streams_alone(postgres: PostgresServer) -> None:
    """What another host has open is still being answered."""
    url = postgres.new_ledger()

    async def main() -> None:
        mine, others = (make_receipt(state="open", stream=True, answer=None) for _ in range(2))
        async with opened(url) as first, opened(url) as second:
            await noted(first, mine)
            await noted(second, others)
            await first.close()
            async with opened(url):
                found = read_receipt(url, mine.id)
                assert found is not None
                assert found.state == "truncated"
                assert read_receipt(url, others.id) == others

    asyncio.run(main())


def test_a_server_that_goes_away_and_comes_back(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named to those who ask meanwhile; nothing that was acknowledged is lost, nothing is there twice."""
    monkeypatch.setattr("upstack.core.store.client._LOOK_S", 0.1)
    url = postgres.new_ledger()

    async def main() -> None:
        kept = []
        async with opened(url) as ledger:
            for _ in range(20):
                kept += (receipts := [make_receipt() for _ in range(5)])
                assert await recorded(ledger, *receipts) == [None] * 5
            postgres.kill()
            late = make_receipt()
            (error,) = await recorded(ledger, late)
            assert isinstance(error, LedgerError)
            assert url in error.message
            assert ledger.failing == error.message
            postgres.start()
            while ledger.failing is not None:
                await asyncio.sleep(0.05)
            kept += (receipts := [make_receipt() for _ in range(5)])
            assert await recorded(ledger, *receipts) == [None] * 5
        found = [receipt.id for receipt in list_receipts(url, 500)]
        assert sorted(found) == sorted([*(receipt.id for receipt in kept), late.id])
        refused = read_receipt(url, late.id)
        assert refused is not None
        assert (refused.state, refused.status, refused.error) == ("failed", 503, "ledger_unavailable")
        assert verify(url).found == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://upstack:hunter2@127.0.0.1:1/none",
        "postgresql://upstack:hunter2@127.0.0.1:no/none",
        "postgresql://upstack:%68unter2@127.0.0.1:1/none",
        "postgresql://upstack@127.0.0.1:1/none?password=hunter2",
        "postgresql://upstack:hunter2@127.0.0.1:1/none?nonsense=1",
    ],
)
def test_no_error_holds_a_password(url: str) -> None:
    """Whatever is wrong with the URL or its server."""

    def start() -> Any:
        asyncio.run(LedgerClient(url).start())

    def read() -> Any:
        list_receipts(url, 1)

    for use in (start, read, lambda: verify(url)):
        with pytest.raises(LedgerError) as raised:
            use()
        assert "ter2" not in str(raised.value)


def test_streams_of_a_chain_that_nobody_holds_are_closed(postgres: PostgresServer) -> None:
    """Two writers of a host die at once, and one comes back: it closes what both had begun, into its own chain."""
    place = postgres.new_ledger()
    writers = [open_ledger(place, 5.0), open_ledger(place, 5.0)]
    openings = [make_receipt(state="open", stream=True, answer=None) for _ in writers]
    for writer, opening in zip(writers, openings, strict=True):
        assert writer.record(([], [], [(*to_row(opening), opening.request, None, False)], [])) == []
    assert {writer.chain for writer in writers} == {0, 1}
    for writer in writers:
        writer.close()
    next_one = open_ledger(place, 5.0)
    assert next_one.recover() == 2
    next_one.close()
    found = [read_receipt(place, opening.id) for opening in openings]
    assert [receipt and receipt.state for receipt in found] == ["truncated"] * 2
    assert verify(place).found == 0
