"""Retention: what is too old goes, what is gone is signed for, and every state in between verifies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from tests.custody import DAY, HOUR, START, add_outcome, ask, change, count_rows, hourly, record
from upstack.core.errors import LedgerError
from upstack.core.store.custody import custody, make_checkpoints
from upstack.core.store.engine import transaction
from upstack.core.store.ids import first_id
from upstack.core.store.keeping import Job
from upstack.core.store.link import environment
from upstack.core.store.links import RECEIPTS
from upstack.core.store.reading import read_receipt
from upstack.core.store.removal import removing
from upstack.core.store.retention import Pruned, Retention, count, prune
from upstack.core.store.verify import verify
from upstack.core.store.walk import Removed
from upstack.testing.receipts import BARE, make_receipt
from upstack.testing.store_checks import opened, recorded


def pruned(place: str, retention: Retention, now: float, steps: int = 10**9) -> Pruned:
    """Prune, in `steps` transactions at most."""
    left = iter(range(steps))
    with custody(place) as (_, signer):
        return prune(place, signer, retention, now, lambda: next(left, None) is not None)


def removed(place: str) -> set[tuple[str, str, int]]:
    """What the ledger, which is whole, says was removed."""
    done = verify(place)
    assert done.findings == ()
    return {(each.kind, each.why, each.removed) for each in done.removed}


def test_old_rows_go_and_are_signed_for(place: str) -> None:
    """Receipts with their contents; sums of spend stay, and so does what is young enough."""
    made = hourly(72)
    record(place, made)
    spent = ask(place, "SELECT sum(requests), sum(cost_picodollars) FROM spend")
    now = START + 72 * HOUR
    with transaction(place) as database:
        assert count(database, Retention(1.0), now) == Pruned(48, 0)
    assert pruned(place, Retention(1.0), now) == Pruned(48, 0)
    assert removed(place) == {("rows", "retention of 1 day", 48)}
    assert (count_rows(place), ask(place, "SELECT count(*) FROM contents")) == (24, [(24,)])
    assert ask(place, "SELECT sum(requests), sum(cost_picodollars) FROM spend") == spent
    assert read_receipt(place, made[47].id) is None
    assert read_receipt(place, made[48].id) == made[48]
    assert pruned(place, Retention(1.0), now) == Pruned(0, 0)
    assert pruned(place, Retention(1.0), now + 6 * HOUR) == Pruned(6, 0)
    assert removed(place) == {("rows", "retention of 1 day", 54)}
    assert ask(place, "SELECT count(*) FROM tombstones") == [(1,)]


def test_contents_may_go_before_their_receipts(place: str) -> None:
    """Then receipts are read without them; rows that never had any, and others' erasures, are no obstacle."""
    made = [*hourly(20), *hourly(1, **BARE), *hourly(30)[21:]]
    record(place, made)
    now = START + 30 * HOUR
    with transaction(place) as database:
        assert count(database, Retention(0.0, 0.5), now) == Pruned(0, 18)
    assert pruned(place, Retention(0.0, 0.5), now) == Pruned(0, 18)
    assert pruned(place, Retention(0.0, 0.25), now) == Pruned(0, 5)
    found = read_receipt(place, made[0].id)
    assert found is not None
    assert (found.request, found.answer) == (None, None)
    assert removed(place) == {
        ("contents", "content retention of 0.5 days", 18),
        ("contents", "content retention of 0.25 days", 5),
    }
    assert pruned(place, Retention(0.5, 0.25), now).rows == 19
    assert ("rows", "retention of 0.5 days", 19) in removed(place)


def test_rows_recorded_out_of_order_go_when_they_are_old(place: str) -> None:
    """Requests that took long, and clocks that were wrong: fragments become one stretch in the end."""
    made = hourly(30)
    future = make_receipt(id=first_id(START + 900 * DAY) + "0" * 16)
    shuffled = [*made[1::2], future, *made[0::2]]
    record(place, shuffled)
    assert pruned(place, Retention(1.0), START + 1.5 * DAY) == Pruned(12, 0)
    assert removed(place) == {("rows", "retention of 1 day", 12)}
    assert pruned(place, Retention(1.0), START + 4 * DAY) == Pruned(17, 0)
    assert removed(place) == {("rows", "retention of 1 day", 29)}
    assert ask(place, "SELECT count(*) FROM tombstones") == [(2,)]  # the receipt of the wrong clock stands between


def test_outcomes_go_with_the_stretch(place: str) -> None:
    """They lie among the receipts of a chain, and are removed and signed for with them."""
    made = hourly(10)
    record(place, made)
    for at in (10, 11, 12):
        add_outcome(place, made[at - 10], START + at * HOUR, b"well done")
    record(place, hourly(20)[13:])
    done = verify(place)
    assert (done.receipts, done.outcomes, done.contents, done.found) == (17, 3, 20, 0)
    assert pruned(place, Retention(0.0, 0.25), START + 17 * HOUR) == Pruned(0, 11)
    assert pruned(place, Retention(0.25), START + 18 * HOUR) == Pruned(12, 0)
    done = verify(place)
    assert (done.receipts, done.outcomes, done.found) == (7, 1, 0)
    assert ask(place, "SELECT count(*) FROM outcome_contents") == [(1,)]
    change(place, "UPDATE outcomes SET score = 1.0")
    assert [str(finding.receipt)[:5] for finding in verify(place).findings] == ["otcm_"]


def test_the_newest_row_stays_and_the_chain_goes_on(place: str) -> None:
    """However old; so no place in the chain is given out twice."""
    record(place, hourly(12))
    assert pruned(place, Retention(1.0), START + 900 * DAY) == Pruned(11, 0)
    assert count_rows(place) == 1
    record(place, hourly(3))
    assert verify(place).found == 0
    assert ask(place, "SELECT min(seq), max(seq) FROM receipts") == [(12, 15)]


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_ended_anywhere_it_verifies_and_goes_on(place: str, steps: int) -> None:
    """After any number of transactions."""
    record(place, hourly(150, **BARE), 50)
    for _ in range(9):
        pruned(place, Retention(1.0), START + 7 * DAY, steps)
        assert verify(place).found == 0
    assert count_rows(place) < 150
    pruned(place, Retention(1.0), START + 7 * DAY)
    assert removed(place) == {("rows", "retention of 1 day", 144)}


def test_a_row_that_was_edited_is_not_removed_without_a_word(place: str) -> None:
    """Retention does not sign for what does not verify; the finding stays."""
    made = hourly(20)
    record(place, made)
    change(place, "UPDATE receipts SET cost_picodollars = 1 WHERE seq = 7")
    with pytest.raises(LedgerError, match=made[6].id):
        pruned(place, Retention(0.1), START + 2 * DAY)
    assert [finding.position for finding in verify(place).findings] == [7]


def test_a_forged_tombstone_is_not_made_good(place: str) -> None:
    """Rows deleted by hand with a made-up tombstone stay missing, whatever is removed beside them."""
    record(place, hourly(20))
    pruned(place, Retention(0.25), START + 9 * HOUR)
    change(
        place,
        "INSERT INTO tombstones SELECT 'tomb_x', t.created_at, kind, 4, 4, 1, hash_after, hash, seqs, t.why, signer,"
        " signature FROM tombstones AS t, receipts WHERE seq = 4",
        "DELETE FROM contents WHERE receipt_seq = 4",
        "DELETE FROM receipts WHERE seq = 4",
    )
    pruned(place, Retention(0.25), START + 15 * HOUR)
    said = [finding.what for finding in verify(place).findings]
    assert any("tomb_x does not bear out its signature" in each for each in said)
    assert any("1 row is missing" in each for each in said)


@contextmanager
def keeper(place: str, retention: Retention) -> Iterator[subprocess.Popen[str]]:
    """The process that a gateway starts."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "upstack.core.store.keeping"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(msgspec.json.encode(Job(place, None, retention)).decode() + "\n")
        process.stdin.flush()
        yield process


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What it says in the end."""
    assert process.stdout is not None
    said: dict[str, Any] = msgspec.json.decode(process.stdout.readline())
    return said


def test_the_process_of_a_gateway_removes_and_signs_a_checkpoint_a_day(place: str) -> None:
    """Once more within the day, it signs none; where it cannot, it says why."""
    record(place, [make_receipt(id=f"rcpt_{day:012x}{os.urandom(8).hex()}") for day in range(30)])
    for rows in (29, 0):
        with keeper(place, Retention(1.0, 0.5)) as process:
            assert answer(process) == {"rows": rows, "contents": 0 if rows == 0 else 1, "error": None}
    assert ask(place, "SELECT count(*) FROM checkpoints") == [(1,)]
    assert verify(place).checkpoints == 1
    with keeper(place + "x", Retention(1.0)) as process:
        assert answer(process)["error"]


def test_killed_at_any_moment_it_verifies(place: str) -> None:
    """The process is killed while it removes; what is there is whole, and the next goes on."""
    record(place, [make_receipt(id=f"rcpt_{at:012x}{os.urandom(8).hex()}", **BARE) for at in range(1500)], 500)
    for delay in (0.35, 0.4, 0.45, 0.5):
        with keeper(place, Retention(1.0)) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        assert verify(place).found == 0
    with keeper(place, Retention(1.0)) as process:
        assert answer(process)["error"] is None
    assert removed(place) == {("rows", "retention of 1 day", 1499)}


def test_a_writer_and_two_who_remove_are_in_nobodys_way(place: str) -> None:
    """Receipts are recorded meanwhile; two at once remove each row once."""
    record(place, [make_receipt(id=f"rcpt_{at:012x}{os.urandom(8).hex()}", **BARE) for at in range(1500)], 500)
    make_checkpoints_of(place)

    async def main() -> None:
        async with opened(place) as ledger:
            with keeper(place, Retention(1.0)) as one, keeper(place, Retention(1.0)) as other:
                while None in (one.poll(), other.poll()):
                    assert await recorded(ledger, make_receipt(**BARE)) == [None]
                said = [answer(each) for each in (one, other)]
        assert [each["error"] for each in said] == [None, None]
        assert 1499 <= sum(each["rows"] for each in said) <= 1500

    asyncio.run(main())
    assert verify(place).found == 0


def make_checkpoints_of(place: str) -> None:
    """Sign one of each chain."""
    with custody(place) as (_, signer):
        make_checkpoints(place, signer)


def test_tombstones_of_contents_stay_few(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One takes as many ranges as it should, then there is a second."""
    monkeypatch.setattr("upstack.core.store.removal._RANGES_MOST", 3)
    record(place, hourly(16), 16)
    with custody(place) as (_, signer), removing(place, signer) as remover:
        for seq in (1, 3, 5, 7, 9, 2):
            remover.remove_contents(RECEIPTS, [seq], "a test")
    done = verify(place)
    assert (done.found, done.removed) == (0, (Removed("contents", "a test", 6),))
    assert sorted(ask(place, "SELECT seqs FROM tombstones")) == [("[7,9]",), ("[[1,3],5]",)]
