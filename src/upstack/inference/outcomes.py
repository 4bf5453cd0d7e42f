"""What outcomes say about an answer, at a given time. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from upstack.core.types import Outcome


class Verdict(msgspec.Struct, frozen=True):
    """What is known. Without a `value` an answer that is not `mature` is not bad: it is not yet known."""

    value: float | None  # 0 (as bad as can be) to 1; None: nothing counts
    mature: bool  # outcomes have had their time to come
    outcome: Outcome | None  # the one that counts; a withdrawal too
    superseded: int  # how many of the same name came before it


def verdict(outcomes: Iterable[Outcome], name: str, asked_at: float, maturity: float, now: float) -> Verdict:
    """Judge by the latest outcome of a name: of the receipt itself, else of its episode. All times in seconds."""
    said = [each for each in outcomes if each.name == name and (each.value is not None or each.withdrawn)]
    of_receipt = [each for each in said if each.receipt is not None]
    counting = sorted(of_receipt or said, key=lambda each: (each.created_at, each.id))
    mature = now >= asked_at + maturity
    if not counting:
        return Verdict(None, mature, None, 0)
    latest = counting[-1]
    value = None if latest.value is None else float(latest.value)
    return Verdict(value, mature, latest, len(counting) - 1)
