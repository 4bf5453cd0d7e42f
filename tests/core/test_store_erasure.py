"""Erasure: nothing of a subject is left in any byte, and the ledger says that something was taken out of it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.custody import START, add_outcome, ask, bytes_of, hourly, record
from upstack.core.store.custody import custody
from upstack.core.store.erasure import Erased, erase_receipt, erase_subject
from upstack.core.store.places import is_postgres, keystore_of
from upstack.core.store.reading import read_receipt
from upstack.core.store.verify import verify
from upstack.testing.receipts import make_receipt
from upstack.testing.store_checks import noted, opened, recorded

NAME = "Agnes Nonesuch"
TEXT = b"her knee since the accident"


def erase(place: str, subject: str) -> Erased:
    """Erase as the command line does."""
    with custody(place) as (keystore, signer):
        return erase_subject(place, keystore, signer, subject)


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_nothing_is_left_of_a_subject(place: str, tmp_path: Path, encrypted: bool) -> None:
    """Requests, answers, outcomes and a stream under way, large and small; while the writer runs. Again: nothing."""
    hers = hourly(30, subject=NAME, request=TEXT, answer=TEXT * 2000, encrypted=encrypted)
    others = hourly(5, subject="somebody else", encrypted=encrypted)
    record(place, [*others[:2], *hers[:20]])
    if not encrypted:
        add_outcome(place, hers[0], START, TEXT, NAME)
    stream = make_receipt(state="open", stream=True, answer=None, subject=NAME, request=TEXT * 500, encrypted=encrypted)
    short = make_receipt(state="open", stream=True, answer=None, subject=NAME, request=TEXT, encrypted=encrypted)

    async def main() -> Erased:
        async with opened(place) as ledger:
            await noted(ledger, short)
            await noted(ledger, stream)
            assert await recorded(ledger, *hers[20:], *others[2:]) == [None] * 13
            done = await asyncio.to_thread(erase, place, NAME)
            if not is_postgres(place):
                left = bytes_of(tmp_path)
                assert TEXT not in left
                assert NAME.encode() not in left
            return done

    done = asyncio.run(main())
    assert done == Erased(30 if encrypted else 31, 2, int(encrypted), ())
    assert NAME.encode() not in bytes_of(tmp_path)
    assert ask(place, f"SELECT count(*) FROM contents WHERE subject = '{NAME}'") == [(0,)]
    whole = verify(place)
    assert (whole.found, whole.removed[0].removed) == (0, done.contents)
    assert "erasure of a subject" in whole.removed[0].why
    assert read_receipt(place, others[0].id) == others[0]
    found = read_receipt(place, hers[0].id)
    assert found is not None
    assert (found.request, found.subject, found.cost_picodollars) == (None, None, hers[0].cost_picodollars)
    assert erase(place, NAME) == Erased(0, 0, 0, ())


def test_a_backup_of_the_ledger_cannot_be_read_any_more(tmp_path: Path) -> None:
    """Its key is destroyed; what was under other keys is read from it as before."""
    place = str(tmp_path / "upstack.db")
    hers, other = made = [make_receipt(subject=NAME, encrypted=True), make_receipt(subject="other", encrypted=True)]
    record(place, made)
    backup = str(tmp_path / "backup.db")
    shutil.copy(place, backup)
    assert read_receipt(backup, hers.id, keystore_of(place)) == hers
    erase(place, NAME)
    lost = read_receipt(backup, hers.id, keystore_of(place))
    assert lost is not None
    assert (lost.request, lost.encrypted) == (None, True)
    assert read_receipt(backup, other.id, keystore_of(place)) == other


def test_who_comes_back_gets_a_new_key(place: str) -> None:
    """The writer that had the old one at hand does not use it again."""

    async def main() -> None:
        async with opened(place) as ledger:
            assert await recorded(ledger, make_receipt(subject=NAME, encrypted=True)) == [None]
            ((old,),) = ask(place, "SELECT cipher_key FROM contents")
            assert (await asyncio.to_thread(erase, place, NAME)).contents == 1
            back = make_receipt(subject=NAME, encrypted=True)
            assert await recorded(ledger, back) == [None]
            ((new,),) = ask(place, "SELECT cipher_key FROM contents")
            assert new != old
            assert read_receipt(place, back.id) == back

    asyncio.run(main())


def test_erasing_while_the_subject_is_written_about_loses_nothing_else(place: str) -> None:
    """What is there in the end can be read, and all verifies."""

    async def repeatedly() -> list[Erased]:
        return await asyncio.to_thread(lambda: [erase(place, NAME) for _ in range(4)])

    async def main() -> None:
        async with opened(place) as ledger:
            assert await recorded(ledger, make_receipt(subject=NAME, encrypted=True)) == [None]
            erasing = asyncio.create_task(repeatedly())
            while not erasing.done():
                receipts = [make_receipt(subject=NAME, encrypted=True) for _ in range(8)]
                assert await recorded(ledger, *receipts) == [None] * 8
                await asyncio.sleep(0.005)
            assert erasing.result()[0].contents  # what the later ones find is up to who is faster

    asyncio.run(main())
    assert verify(place).found == 0
    for (receipt_id,) in ask(place, "SELECT id FROM receipts JOIN contents ON receipt_seq = seq"):
        found = read_receipt(place, receipt_id)
        assert found is not None
        assert found.request is not None


def test_one_receipt_is_erased_alone(place: str) -> None:
    """With what was said about it; the key stays for the others of its subject."""
    first, second = made = hourly(2, encrypted=True)
    record(place, made)
    add_outcome(place, first, START, TEXT)
    with custody(place) as (_, signer):
        assert erase_receipt(place, signer, first.id) == Erased(2, 0, 0, ())
        assert erase_receipt(place, signer, first.id) == Erased(0, 0, 0, ())
    assert read_receipt(place, second.id) == second
    done = verify(place)
    assert (done.found, [each.removed for each in done.removed]) == (0, [2])


def test_contents_under_a_key_of_elsewhere_are_told(place: str) -> None:
    """Another host's keystore still opens their backups, so that it must be done there too."""
    record(place, [make_receipt(subject=NAME, encrypted=True)])
    ((key,),) = ask(place, "SELECT cipher_key FROM contents")
    Path(keystore_of(place)).unlink()
    with custody(place, new=True) as (keystore, signer):
        assert erase_subject(place, keystore, signer, NAME) == Erased(1, 0, 0, (key,))
