"""Encrypted contents: readable with the keystore alone, and a keystore that is lost is not replaced without a word."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.custody import ask, bytes_of, change, hourly, record
from upstack.core.errors import LedgerError
from upstack.core.store.cipher import decrypt, encrypt
from upstack.core.store.custody import custody
from upstack.core.store.erasure import erase_subject
from upstack.core.store.keystore import Keystore
from upstack.core.store.outcomes import outcomes_of
from upstack.core.store.places import is_postgres, keystore_of
from upstack.core.store.reading import read_receipt
from upstack.core.store.verify import verify
from upstack.testing.receipts import make_outcome, make_receipt
from upstack.testing.store_checks import noted, opened, recorded, told

SECRET = b"the patient of room nine"


def test_what_is_encrypted_is_read_again_and_stands_nowhere_in_plain_text(place: str, tmp_path: Path) -> None:
    """Through the client and beside it; the chain is whole with the keystore and without."""
    made = [
        *hourly(6, encrypted=True, request=SECRET, answer=SECRET[::-1]),
        make_receipt(encrypted=True, subject=None, request=SECRET, answer=None),
        make_receipt(encrypted=True, capture="hash", request=b"", answer=SECRET),
        make_receipt(encrypted=True, capture="none", request=None, answer=None, subject=None),
    ]

    async def main() -> None:
        async with opened(place) as ledger:
            await noted(ledger, replace(made[0], state="open", answer=None))
            assert ask(place, "SELECT count(*) FROM openings WHERE cipher_key IS NOT NULL") == [(1,)]
            found = await ledger.get(made[0].id)
            assert found is not None
            assert (found.state, found.request, found.encrypted) == ("open", SECRET, True)
            assert await recorded(ledger, *made) == [None] * len(made)
            assert [await ledger.get(each.id) for each in made[:-1]] == made[:-1]
            assert SECRET not in bytes_of(tmp_path)

    asyncio.run(main())
    bare = read_receipt(place, made[-1].id)
    assert bare is not None
    assert not bare.encrypted
    stored = [bytes(part) for row in ask(place, "SELECT request, answer FROM contents") for part in row if part]
    assert len(stored) == 2 * 6 + 1 + 2
    assert not any(SECRET in part or SECRET[::-1] in part for part in stored)
    assert verify(place).found == 0
    Path(keystore_of(place)).unlink()
    assert verify(place).found == 0


def test_what_is_told_of_an_encrypted_answer_is_encrypted_with_it(place: str, tmp_path: Path) -> None:
    """Comment and demonstration, under the subject's key: erased, they are gone, and what was judged stays."""
    about = make_receipt(encrypted=True, request=SECRET, subject="ada")
    outcome = make_outcome(about, comment=SECRET, demonstration=SECRET[::-1], subject="ada", encrypted=True)

    async def main() -> None:
        async with opened(place) as ledger:
            assert await recorded(ledger, about) == [None]
            assert await told(ledger, outcome) == [None]

    asyncio.run(main())
    assert outcomes_of(place, about) == [outcome]
    assert ask(place, "SELECT count(DISTINCT cipher_key) FROM contents JOIN outcome_contents USING (cipher_key)") == [
        (1,)
    ]
    assert SECRET not in bytes_of(tmp_path)
    with custody(place) as (keystore, signer):
        erase_subject(place, keystore, signer, "ada")
    (left,) = outcomes_of(place, about)
    assert (left.value, left.comment, left.demonstration) == (True, None, None)
    assert verify(place).found == 0


def test_a_plain_content_costs_no_keystore(place: str, tmp_path: Path) -> None:
    """It stays text that anybody can read, and no file of keys is made."""
    made = hourly(2, request=b"plain")
    assert record(place, made) == [None] * 2
    assert not Path(keystore_of(place)).exists()
    stored = ask(place, "SELECT request FROM contents")
    assert stored == [(b"plain" if is_postgres(place) else "plain",)] * 2


def test_each_subject_has_a_key_and_each_month_one_for_the_rest(place: str) -> None:
    """The same for all that is about a subject, and only its owner may read the file."""
    subjects = ["ada", "grace", "ada", None, None, "grace"]
    assert record(place, [make_receipt(encrypted=True, subject=each) for each in subjects], 2) == [None] * 6
    keys = [key for (key,) in ask(place, "SELECT cipher_key FROM contents ORDER BY receipt_seq")]
    assert keys[0] == keys[2]
    assert keys[1] == keys[5]
    assert keys[3] == keys[4]
    assert len(set(keys)) == 3
    path = keystore_of(place)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    with closing(sqlite3.connect(path)) as database:
        scopes = {scope for (scope,) in database.execute("SELECT scope FROM content_keys")}
    assert {"subject/ada", "subject/grace"} < scopes
    assert len(scopes) == 3


def test_a_ciphertext_cannot_be_moved(place: str) -> None:
    """Not to another receipt under the same key, not from request to answer: it is not shown as what it is not."""
    first, second = made = [make_receipt(encrypted=True) for _ in range(2)]
    record(place, made)
    change(
        place,
        "UPDATE contents SET request = answer WHERE receipt_seq = 1",
        "UPDATE contents SET answer = (SELECT answer FROM contents WHERE receipt_seq = 1) WHERE receipt_seq = 2",
    )
    for receipt in (first, second):
        found = read_receipt(place, receipt.id)
        assert found is not None
        assert None in (found.request, found.answer)
    assert verify(place).found == 2


@pytest.mark.parametrize("at", [0, 5, 14, -1])
def test_one_byte_changed_does_not_open(at: int) -> None:
    """Version, nonce, ciphertext or tag."""
    key = os.urandom(32)
    stored = encrypt(key, SECRET, "rcpt_1", "request")
    assert decrypt(key, stored, "rcpt_1", "request") == SECRET
    changed = bytearray(stored)
    changed[at] ^= 1
    assert decrypt(key, bytes(changed), "rcpt_1", "request") is None
    assert decrypt(os.urandom(32), stored, "rcpt_1", "request") is None
    assert decrypt(key, stored[:20], "rcpt_1", "request") is None


def test_without_its_keystore_a_content_is_not_readable_and_the_receipt_is(place: str) -> None:
    """Nor with a keystore that lacks the key; put back, it is read again."""
    (receipt,) = made = [make_receipt(encrypted=True)]
    record(place, made)
    path = Path(keystore_of(place))
    kept = path.rename(path.with_name("kept"))
    for _ in range(2):
        found = read_receipt(place, receipt.id)
        assert found is not None
        assert (found.request, found.answer, found.encrypted) == (None, None, True)
        assert found.cost_picodollars == receipt.cost_picodollars
        with custody(place, new=True):
            pass  # another keystore, on purpose
    kept.rename(path)
    assert read_receipt(place, receipt.id) == receipt


def test_a_lost_keystore_is_not_replaced_without_a_word(place: str) -> None:
    """Receipts to be encrypted are refused with the remedy, others go on; once it is back all is well."""
    assert record(place, [make_receipt(encrypted=True, subject="ada")]) == [None]
    path = Path(keystore_of(place))
    kept = path.rename(path.with_name("kept"))
    (refused,) = record(place, [make_receipt(encrypted=True, subject="ada")])
    assert isinstance(refused, LedgerError)
    assert "there is no keystore" in refused.message
    assert "upstack ledger key --new" in refused.message
    assert record(place, [make_receipt()]) == [None]
    with pytest.raises(LedgerError, match="there is no keystore"), custody(place):
        pass
    assert not path.exists()
    kept.rename(path)
    again = make_receipt(encrypted=True, subject="ada")
    assert record(place, [again]) == [None]
    assert len(set(ask(place, "SELECT cipher_key FROM contents WHERE subject = 'ada' AND cipher_key IS NOT NULL"))) == 1


def test_a_keystore_that_goes_while_the_writer_runs_is_missed(place: str) -> None:
    """Nothing is encrypted under a key that no file holds."""
    path = keystore_of(place)

    async def main() -> None:
        async with opened(place) as ledger:
            assert await recorded(ledger, make_receipt(encrypted=True, subject="ada")) == [None]
            os.replace(path, "kept")  # noqa: PTH105 - pathlib is not for coroutines
            (refused,) = await recorded(ledger, make_receipt(encrypted=True, subject="ada"))
            assert isinstance(refused, LedgerError)
            os.replace("kept", path)  # noqa: PTH105
            assert await recorded(ledger, make_receipt(encrypted=True, subject="ada")) == [None]

    asyncio.run(main())
    assert len(set(ask(place, "SELECT cipher_key FROM contents"))) == 1


def test_a_second_key_of_a_subject_is_spoken_of(place: str, capfd: pytest.CaptureFixture[str]) -> None:
    """As with a keystore from an old backup: the key's id goes to standard error, the subject does not."""
    record(place, [make_receipt(encrypted=True, subject="zoe")])
    ((old,),) = ask(place, "SELECT cipher_key FROM contents")
    Path(keystore_of(place)).unlink()
    with custody(place, new=True):
        pass
    assert record(place, [make_receipt(encrypted=True, subject="zoe")]) == [None]
    said = capfd.readouterr().err
    assert old in said
    assert "zoe" not in said  # no id in hexadecimal can hold it


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to look at" * 20])
def test_a_file_that_is_no_keystore_is_refused(tmp_path: Path, content: bytes) -> None:
    """Half-made or foreign, by name; and it is left as it was."""
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(LedgerError, match="other"):
        Keystore(str(path))
    assert path.read_bytes() == content


def test_a_foreign_database_is_refused(tmp_path: Path) -> None:
    """Also where a new one may be made."""
    path = tmp_path / "other"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (x)")
    with pytest.raises(LedgerError, match="is no keystore"):
        Keystore(str(path), write=True, new=True)
    with pytest.raises(LedgerError, match="no keystore"):
        Keystore(str(tmp_path), write=True, new=True)
    with pytest.raises(LedgerError, match="keystore"):
        Keystore(str(tmp_path / "no folder" / "keys"), write=True, new=True)
