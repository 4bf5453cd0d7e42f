"""`check_store`: what every ledger must do, in whatever database. For those who run theirs on one we do not test.

    @pytest.mark.parametrize("check", STORE_CHECKS)
    def test_store(check):
        check(make_place)  # a function that names a new, empty ledger: a path or a URL

The ledger is used as a gateway uses it, with a writer process, and read as the command line reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from msgspec.structs import replace

from upstack.core.errors import LedgerError
from upstack.core.store.base import OUTCOME_KNOWN
from upstack.core.store.client import LedgerClient
from upstack.core.store.outcomes import earlier, outcomes_of
from upstack.core.store.reading import list_receipts, read_receipt
from upstack.core.store.verify import verify
from upstack.core.types import Outcome, Receipt
from upstack.testing.receipts import BARE, make_outcome, make_receipt

MakePlace = Callable[[], str]
WAIT_S = 30.0


@contextlib.asynccontextmanager
async def opened(place: str) -> AsyncIterator[LedgerClient]:
    """A ledger with its writer running."""
    ledger = LedgerClient(place)
    await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


async def recorded(ledger: LedgerClient, *receipts: Receipt) -> list[LedgerError | None]:
    """Append receipts in one tick and wait for what becomes of each."""
    loop = asyncio.get_running_loop()
    answers = [loop.create_future() for _ in receipts]
    for receipt, answer in zip(receipts, answers, strict=True):
        ledger.append(receipt, answer.set_result)
    return await asyncio.wait_for(asyncio.gather(*answers), WAIT_S)


async def told(ledger: LedgerClient, *outcomes: Outcome) -> list[LedgerError | None]:
    """Tell outcomes in one tick and wait for what becomes of each."""
    loop = asyncio.get_running_loop()
    answers = [loop.create_future() for _ in outcomes]
    for outcome, answer in zip(outcomes, answers, strict=True):
        ledger.tell(outcome, answer.set_result)
    return await asyncio.wait_for(asyncio.gather(*answers), WAIT_S)


async def noted(ledger: LedgerClient, opening: Receipt) -> None:
    """Note the beginning of a stream and wait until that is durable."""
    answer: asyncio.Future[LedgerError | None] = asyncio.get_running_loop().create_future()
    ledger.open(opening, answer.set_result)
    assert await asyncio.wait_for(answer, WAIT_S) is None


def _check(body: Callable[[str], Awaitable[None]]) -> Callable[[MakePlace], None]:
    def check(make_place: MakePlace) -> None:
        asyncio.run(_whole(body(make_place())))

    check.__name__, check.__doc__ = body.__name__, body.__doc__
    return check


async def _whole(body: Awaitable[None]) -> None:
    await body


@_check
async def check_content(place: str) -> None:
    """What is recorded is read again byte for byte, be it text or not, much or nothing."""
    changes: list[dict[str, Any]] = [
        {},
        BARE,
        {"answer": None},
        {"request": b"\xff\xfe not text", "answer": b"\xed\xa0\x80"},
        {"request": b"a\0b", "answer": b""},
        {"request": os.urandom(3_000_000), "answer": b"x" * 2_000_000},
        {"capture": "hash", "request": b"sha256:00:00", "answer": b"sha256:00:01"},
        {"model": "model \N{SLICE OF PIZZA}", "created_at": 0.0, "cost_picodollars": 2**63 - 1},
    ]
    receipts = [make_receipt(**change) for change in changes]
    async with opened(place) as ledger:
        assert await recorded(ledger, *receipts) == [None] * len(receipts)
        for receipt in receipts:
            assert await ledger.get(receipt.id) == receipt
            assert read_receipt(place, receipt.id) == receipt
        assert await ledger.get("rcpt_unknown") is None
    assert read_receipt(place, receipts[0].id) == receipts[0]


@_check
async def check_pages(place: str) -> None:
    """Receipts are listed newest first, without contents, page by page."""
    receipts = [make_receipt() for _ in range(250)]
    async with opened(place) as ledger:
        for begin in range(0, 250, 50):
            assert await recorded(ledger, *receipts[begin : begin + 50]) == [None] * 50
        assert (ledger.written, ledger.dropped, ledger.queue_bytes) == (250, 0, 0)
    ids = [receipt.id for receipt in reversed(receipts)]
    assert [receipt.id for receipt in list_receipts(place, 400)] == ids
    assert [receipt.id for receipt in list_receipts(place, 50, ids[99])] == ids[100:150]
    assert all(receipt.request is receipt.answer is None for receipt in list_receipts(place, 3))


@_check
async def check_twice(place: str) -> None:
    """A receipt that comes again, as after a commit whose answer got lost, is there once."""
    first, second, third = receipts = [make_receipt(check_of=check) for check in (None, "rcpt_018c", None)]
    async with opened(place) as ledger:
        assert await recorded(ledger, *receipts) == [None] * 3
        assert await recorded(ledger, second, third, second) == [None] * 3
    assert [receipt.id for receipt in list_receipts(place, 9)] == [third.id, second.id, first.id]
    assert read_receipt(place, second.id) == second


@_check
async def check_bad_row(place: str) -> None:
    """A receipt that no database takes fails alone and is named; the others of its batch are durable."""
    receipts = [make_receipt(), make_receipt(status=None), make_receipt(cost_picodollars=2**63), make_receipt()]
    async with opened(place) as ledger:
        first, no_status, too_large, last = await recorded(ledger, *receipts)
        assert first is None
        assert last is None
        assert isinstance(no_status, LedgerError)
        assert isinstance(too_large, LedgerError)
        assert ledger.failing is None
    assert [receipt.id for receipt in list_receipts(place, 9)] == [receipts[3].id, receipts[0].id]


@_check
async def check_openings(place: str) -> None:
    """A stream is seen as open once it is noted, and is one receipt when it has ended."""
    opening = make_receipt(state="open", stream=True, answer=None)
    ended = make_receipt(id=opening.id, stream=True)
    async with opened(place) as ledger:
        await noted(ledger, opening)
        assert read_receipt(place, opening.id) == opening
        assert list_receipts(place, 9) == []
        await noted(ledger, make_receipt(id=opening.id, state="open", stream=True, answer=None, why="another"))
        found = read_receipt(place, opening.id)
        assert found is not None
        assert found.why == "another"
        assert await recorded(ledger, ended) == [None]
        assert read_receipt(place, opening.id) == ended
    assert [receipt.id for receipt in list_receipts(place, 9)] == [opening.id]


@_check
async def check_left_open(place: str) -> None:
    """Streams that a crash left open are truncated receipts when the next writer is ready, with what they asked."""
    openings = [make_receipt(state="open", stream=True, answer=None) for _ in range(45)]
    async with opened(place) as ledger:
        for opening in openings:
            await noted(ledger, opening)
    async with opened(place):
        found = [read_receipt(place, opening.id) for opening in openings]
        assert [receipt and receipt.state for receipt in found] == ["truncated"] * 45
        assert found[0] is not None
        assert (found[0].error, found[0].request) == ("gateway_restarted", openings[0].request)
        assert len(list_receipts(place, 100)) == 45


@_check
async def check_killed_writer(place: str) -> None:
    """A writer that is killed is replaced; nothing is lost, nothing doubled."""
    receipts = [make_receipt() for _ in range(200)]
    async with opened(place) as ledger:
        assert await recorded(ledger, *receipts[:50]) == [None] * 50
        waiting = [asyncio.ensure_future(recorded(ledger, receipt)) for receipt in receipts[50:]]
        await asyncio.sleep(0)
        assert ledger.writer is not None
        os.kill(ledger.writer, signal.SIGKILL)
        assert await asyncio.gather(*waiting) == [[None]] * 150
    ids = [receipt.id for receipt in list_receipts(place, 1000)]
    assert sorted(ids) == sorted(receipt.id for receipt in receipts)


@_check
async def check_outcomes(place: str) -> None:
    """Outcomes are read again as they were told, newest first, and each is in the chain once."""
    receipt, other = make_receipt(), make_receipt(episode=None)
    outcomes = [
        make_outcome(receipt, at=1_800_000_001.0, value=True, key="app", comment=b"\xff", subject="driver 17"),
        make_outcome(receipt, at=1_800_000_002.5, value=0.25, demonstration=b"right", subject="driver 17"),
        make_outcome(receipt, at=1_800_000_003.0, receipt=None, episode="shift 3", value=False),
        make_outcome(receipt, at=1_800_000_004.0, value=None, withdrawn=True, observed_at=1_700_000_000.0),
    ]
    strange = make_outcome(receipt, receipt=None, episode="shift 3", only_key="another")
    async with opened(place) as ledger:
        assert await recorded(ledger, receipt, other) == [None] * 2
        assert await told(ledger, *outcomes, strange, make_outcome(other)) == [None] * 6
        assert await told(ledger, *outcomes) == [None] * 4  # again, as after a commit whose answer got lost
        taken = replace(outcomes[0], id=make_outcome(receipt).id)
        bad = make_outcome(receipt, value=float("nan"), source=None)
        late = make_outcome(receipt, at=1_800_000_005.0)
        refused = await told(ledger, taken, bad, late)
    assert [error and error.message for error in refused[::2]] == [OUTCOME_KNOWN, None]
    assert isinstance(refused[1], LedgerError)
    assert outcomes_of(place, receipt) == [late, *reversed(outcomes)]
    assert earlier(place, taken).same == outcomes[0]
    found = verify(place)
    assert (found.receipts, found.outcomes, found.contents, found.found) == (2, 7, 4, 0)


@_check
async def check_killed_among_outcomes(place: str) -> None:
    """A writer that is killed loses none that was acknowledged, and doubles none; the next goes on with the chain."""
    receipts = [make_receipt() for _ in range(40)]
    async with opened(place) as ledger:
        assert await recorded(ledger, *receipts) == [None] * 40
        for receipt in receipts:
            waiting = asyncio.ensure_future(told(ledger, make_outcome(receipt), make_outcome(receipt)))
            await asyncio.sleep(0)
            if receipt in receipts[::10] and ledger.writer is not None:
                os.kill(ledger.writer, signal.SIGKILL)
            assert await waiting == [None] * 2
    assert [len(outcomes_of(place, receipt)) for receipt in receipts] == [2] * 40
    async with opened(place) as ledger:
        assert await recorded(ledger, make_receipt()) == [None]
    found = verify(place)
    assert (found.receipts, found.outcomes, found.found) == (41, 80, 0)


STORE_CHECKS: tuple[Callable[[MakePlace], None], ...] = (
    check_content,
    check_pages,
    check_twice,
    check_bad_row,
    check_openings,
    check_left_open,
    check_killed_writer,
    check_outcomes,
    check_killed_among_outcomes,
)


def check_store(make_place: MakePlace) -> None:
    """Run every check; `make_place` names a new, empty ledger each time. AssertionError where one fails."""
    for check in STORE_CHECKS:
        check(make_place)
