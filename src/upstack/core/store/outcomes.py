"""What is read of outcomes beside a gateway that writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from upstack.core.store.places import keystore_of
from upstack.core.store.reading import Ask, decrypted, reading, to_bytes
from upstack.core.store.rows import OUTCOME_COLUMNS, clean, to_outcome, to_seconds
from upstack.core.types import Outcome, Receipt

_COUNT = len(OUTCOME_COLUMNS)
_WHOLE = (
    f"SELECT {', '.join(OUTCOME_COLUMNS)}, comment, demonstration, subject, cipher_key"
    " FROM outcomes LEFT JOIN outcome_contents ON outcome_seq = seq WHERE "
)
_NEWEST_FIRST = " ORDER BY created_at DESC, id DESC"
_SHOWN = 1000


class Earlier(msgspec.Struct, frozen=True):
    """What an outcome meets in the ledger."""

    same: Outcome | None  # the one that has its idempotency key
    count: int  # that its key told of the same thing before
    superseded: str | None  # id of the one that has counted until now
    latest: float | None  # Unix seconds of the newest of the same thing


def outcomes_of(place: Path | str, receipt: Receipt, keystore: str | None = None) -> list[Outcome]:
    """What was told of a receipt and of its episode, newest first, at most 1,000 of each."""
    with reading(str(place)) as ask:
        found = _ask(ask, f"receipt = ?{_NEWEST_FIRST} LIMIT {_SHOWN}", place, keystore, receipt.id)
        if receipt.episode is not None:
            mine = f"episode = ? AND (only_key IS NULL OR only_key = ?){_NEWEST_FIRST} LIMIT {_SHOWN}"
            found += _ask(ask, mine, place, keystore, receipt.episode, receipt.key or "")
    return sorted(found, key=lambda each: (each.created_at, each.id), reverse=True)


def newest_of_episode(place: Path | str, episode: str, key: str | None) -> str | None:
    """The id of an episode's newest receipt, None where there is none; of those that `key` asked for, if given."""
    with reading(str(place)) as ask:
        rows = ask(
            "SELECT max(id) FROM receipts WHERE episode = ? AND (? = '' OR key = ?)", episode, key or "", key or ""
        )
    return None if rows[0][0] is None else str(rows[0][0])


def told_by(place: Path | str, source: str) -> list[tuple[str, float]]:
    """What a source told of: ids of receipts, and when (Unix seconds), in that order."""
    with reading(str(place)) as ask:
        rows = ask(
            "SELECT receipt, created_at FROM outcomes WHERE source = ? AND receipt IS NOT NULL ORDER BY created_at, id",
            source,
        )
    return [(str(receipt), to_seconds(created_at)) for receipt, created_at in rows]


def earlier(place: Path | str, outcome: Outcome, keystore: str | None = None) -> Earlier:
    """What the ledger has that an outcome must know before it is recorded."""
    about = "receipt" if outcome.receipt is not None else "episode"
    with reading(str(place)) as ask:
        known = "key = ? AND idempotency_key = ?"
        same = _ask(ask, known, place, keystore, outcome.key or "", clean(outcome.idempotency_key))
        rows = ask(
            "SELECT id, created_at, name, key, success IS NOT NULL OR score IS NOT NULL OR withdrawn = 1"
            f" FROM outcomes WHERE {about} = ? AND coalesce(only_key, '') = ?{_NEWEST_FIRST}",
            outcome.receipt if outcome.receipt is not None else clean(outcome.episode),
            outcome.only_key or "",
        )
    return Earlier(
        same[0] if same else None,
        sum(key == (outcome.key or "") for _, _, _, key, _ in rows),
        next((each for each, _, name, _, counts in rows if counts and name == clean(outcome.name)), None),
        to_seconds(rows[0][1]) if rows else None,
    )


def _ask(ask: Ask, where: str, place: Path | str, keystore: str | None, *values: Any) -> list[Outcome]:
    found = []
    for row in ask(_WHOLE + where, *values):
        comment, demonstration = map(to_bytes, row[_COUNT : _COUNT + 2])
        subject, cipher_key = row[_COUNT + 2 :]
        if cipher_key is not None:
            parts = ((comment, "comment"), (demonstration, "demonstration"))
            comment, demonstration = decrypted(keystore_of(str(place), keystore), cipher_key, row[0], parts)
        found.append(to_outcome(row[:_COUNT], (comment, demonstration, subject, cipher_key is not None)))
    return found
