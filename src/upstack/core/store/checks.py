"""What a ledger knows of a task's checks: each with what was asked beside it, and what was told to be right."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any, TypeVar

import msgspec

from upstack.core.errors import LedgerError
from upstack.core.store.cipher import decrypt
from upstack.core.store.places import keystore_of
from upstack.core.store.reading import Ask, reading, to_bytes
from upstack.core.store.rows import COLUMNS, to_receipt, to_seconds
from upstack.core.types import Receipt

_COUNT = len(COLUMNS)
_WHOLE = (
    f"SELECT {', '.join(COLUMNS)}, request, answer, subject, cipher_key, commitment"
    " FROM receipts LEFT JOIN contents ON receipt_seq = seq WHERE"
)
_CHECKS = f"{_WHOLE} coin IS NOT NULL AND task = ? AND id >= ? ORDER BY id"
_ALL = f"{_WHOLE} check_of IS NULL AND task = ? AND id >= ? AND state = 'answered' ORDER BY id"
_BESIDE = f"{_WHOLE} check_of IS NOT NULL AND check_of >= ? AND task = ? ORDER BY id"
_TOLD = (
    "SELECT receipt, name, withdrawn, success, score, outcomes.id, demonstration, cipher_key, created_at, source, key"
    " FROM outcomes LEFT JOIN outcome_contents ON outcome_seq = seq"
    " WHERE receipt IS NOT NULL AND receipt >= ? ORDER BY created_at, outcomes.id"
)
_NEWEST = (
    "SELECT (SELECT max(id) FROM receipts WHERE coin IS NOT NULL),"
    " (SELECT max(seq) FROM receipts WHERE check_of IS NOT NULL), (SELECT max(seq) FROM outcomes)"
)
_PARTS = "SELECT id, cluster, part FROM parts WHERE task = ? ORDER BY id"


JUDGES = ("reviewer", "test")  # sources whose word is evidence, alone or before a colon


class Claim(msgspec.Struct, frozen=True):
    """What somebody told to be the right answer, who is no reviewer."""

    source: str  # the virtual key that told, else who it says it is
    answer: bytes


class Check(msgspec.Struct, frozen=True):
    """One request: one whose coin fell, where all are not asked for."""

    receipt: Receipt
    beside: tuple[Receipt, ...]  # what its other routes said; those that are still being asked are missing
    truth: bytes | None  # what somebody who may say so told to be the right answer
    told: Mapping[str, float]  # how good an answer is, in 0 to 1, by the id of its receipt
    gone: bool  # its content was removed, or cannot be decrypted
    claims: tuple[Claim, ...] = ()  # what others told to be right, which proves nothing


class Part(msgspec.Struct, frozen=True):
    """What a check may be used for."""

    id: str
    cluster: str  # id of the first that is nearly the same
    part: str  # "fit", "evidence", or "repeat"


def newest(place: str) -> tuple[Any, ...]:
    """What differs once there is something new to look at."""
    with reading(place) as ask:
        return tuple(ask(_NEWEST)[0])


def requests_since(place: str, task: str, since: str) -> int:
    """How many requests of a task were answered, from the id `since` on."""
    with reading(place) as ask:
        rows = ask("SELECT count(*) FROM receipts WHERE task = ? AND id >= ? AND state = 'answered'", task, since)
    return int(rows[0][0])


def read_parts(place: str, task: str) -> list[Part]:
    """What was decided of a task's checks."""
    with reading(place) as ask:
        return [Part(*row) for row in ask(_PARTS, task)]


def read_checks(
    place: str, task: str, beside: str, since: str = "", keystore: str | None = None, *, every: bool = False
) -> list[Check]:
    """Read a task's checks from the id `since` on, in order; `beside`: under which task the rest was asked.

    `every`: all requests that were answered, and not those alone whose coin fell.
    """
    with reading(place) as ask, closing(_Opener(keystore_of(place, keystore))) as opener:
        checks = [(receipt, gone) for receipt, gone in _receipts(ask, opener, _ALL if every else _CHECKS, task, since)]
        others: dict[str | None, list[Receipt]] = {}
        for receipt, _ in _receipts(ask, opener, _BESIDE, since, beside):
            others.setdefault(receipt.check_of, []).append(receipt)
        wanted = {receipt.id for receipt, _ in checks}
        wanted |= {each.id for several in others.values() for each in several}
        truths, told, claims = _told(ask, opener, since, wanted)
    found = []
    for receipt, gone in checks:
        rest = tuple(others.get(receipt.id, ()))
        values = {each.id: told[each.id] for each in (receipt, *rest) if each.id in told}
        claimed = tuple(Claim(*each) for each in claims.get(receipt.id, {}).items())
        found.append(Check(receipt, rest, truths.get(receipt.id), values, gone, claimed))
    return found


def _receipts(ask: Ask, opener: _Opener, query: str, *values: str) -> list[tuple[Receipt, bool]]:
    found = []
    for row in ask(query, *values):
        *stored, subject, cipher_key, commitment = row[_COUNT:]
        request, answer = map(to_bytes, stored)
        parts = ((request, "request"), (answer, "answer"))
        request, answer = opener.opened(cipher_key, row[0], parts)
        gone = request is None and commitment is not None
        found.append((to_receipt(row[:_COUNT], (request, answer, subject, cipher_key is not None)), gone))
    return found


def may_judge(source: str, key: str) -> bool:
    """Whether what was told may be evidence: by a reviewer, by an executed test, or where there are no keys at all.

    Who may call itself a reviewer or a test was checked when it told.
    """
    return not key or source.partition(":")[0] in JUDGES


def _told(
    ask: Ask, opener: _Opener, since: str, wanted: set[str]
) -> tuple[dict[str, bytes], dict[str, float], dict[str, dict[str, bytes]]]:
    """The latest demonstration, and the latest value, of each receipt; what was taken back counts no more.

    And what those claim who are no judges, by receipt and source.
    """
    claims: dict[str, dict[str, bytes]] = {}
    truths: dict[str, dict[str, tuple[float, bytes]]] = {}
    values: dict[str, dict[str, tuple[float, float]]] = {}
    for row in ask(_TOLD, since):
        receipt, name, withdrawn, success, score, own_id, demonstration, cipher_key, created_at, source, key = row
        if receipt not in wanted:
            continue
        at = to_seconds(created_at)
        if withdrawn:
            values.get(receipt, {}).pop(name, None)
            claims.get(receipt, {}).pop(key or source, None)
            if may_judge(source, key):
                truths.get(receipt, {}).pop(name, None)
        if success is not None or score is not None:
            values.setdefault(receipt, {})[name] = (at, float(success if score is None else score))
        (truth,) = opener.opened(cipher_key, own_id, ((to_bytes(demonstration), "demonstration"),))
        if truth is not None and not may_judge(source, key):
            claims.setdefault(receipt, {})[key or source] = truth
        elif truth is not None:
            truths.setdefault(receipt, {})[name] = (at, truth)
    return _latest(truths), _latest(values), claims


_What = TypeVar("_What", bytes, float)


def _latest(told: dict[str, dict[str, tuple[float, _What]]]) -> dict[str, _What]:
    return {receipt: max(names.values())[1] for receipt, names in told.items() if names}


class _Opener:
    """Decrypts with a keystore that is opened once, when there is something to decrypt."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._keys: dict[str, bytes | None] = {}
        self._keystore: Any = None
        self._missing = False

    def opened(
        self, cipher_key: str | None, owner: str, parts: tuple[tuple[bytes | None, str], ...]
    ) -> tuple[bytes | None, ...]:
        """The parts of a content; None where they cannot be decrypted."""
        if cipher_key is None:
            return tuple(part for part, _ in parts)
        key = self._key(cipher_key)
        return tuple(part and key and decrypt(key, part, owner, field) for part, field in parts)

    def _key(self, cipher_key: str) -> bytes | None:
        if cipher_key not in self._keys and not self._missing:
            if self._keystore is None:
                from upstack.core.store.keystore import Keystore  # noqa: PLC0415 - most ledgers need none

                try:
                    self._keystore = Keystore(self._path)
                except LedgerError:
                    self._missing = True
                    return None
            self._keys[cipher_key] = self._keystore.key(cipher_key)
        return self._keys.get(cipher_key)

    def close(self) -> None:
        """Let go of the keystore."""
        if self._keystore is not None:
            self._keystore.close()
