"""Whose word is learned from: feedback is open to anybody who has a key, and to whoever would spoil a student. Pure.

A source that is not a reviewer says what is right in its view. It is believed a little, as far as it has agreed with
what is known; one that contradicts that is put into quarantine with all it ever said. Rows whose truth is known, and
which nobody can tell from others, are the canaries. All who have not been found out together weigh little beside the
teacher, and none of it is ever evidence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

SHARE_OF_ONE = 0.02  # of the lessons, that one source may put right; at least FEW
SHARE_OF_ALL = 0.1  # of what the lessons weigh, that feedback may weigh together
FEW = 5
WEIGHT = 0.5  # of a row that a source put right, beside one of the teacher's
_JUDGED = 3  # canaries before a source can be quarantined
_WRONG = 0.4  # share of its canaries that it got wrong, from which a source is quarantined


class Said(msgspec.Struct, frozen=True):
    """One claim: what a source says is right of a row."""

    row: str
    source: str
    answer: str


class Believed(msgspec.Struct, frozen=True):
    """What is learned of it."""

    answers: Mapping[str, tuple[str, float]]  # by row: what is right, and what that weighs
    quarantined: Mapping[str, str]  # source -> why
    dropped: Mapping[str, str]  # row -> why what was said of it is not believed


def believe(
    claims: Sequence[Said], truths: Mapping[str, str], lessons: int, known: Collection[str] | None = None
) -> Believed:
    """Decide which claims are learned from; `truths` by row: what is known, `lessons`: how many rows there are.

    `known`: the answers that the teacher and reviewers have ever given, where a claim must be one of them.
    """
    quarantined = _quarantined(claims, truths)
    most = max(FEW, math.floor(SHARE_OF_ONE * lessons))
    counts: dict[str, int] = {}
    by_row: dict[str, dict[str, list[str]]] = {}
    dropped: dict[str, str] = {}
    for each in claims:
        if each.row in truths:
            continue
        if each.source in quarantined:
            dropped[each.row] = f"its only word is of a source in quarantine: {quarantined[each.source]}"
            continue
        if known is not None and each.answer not in known:
            dropped[each.row] = "neither the teacher nor a reviewer has ever answered so"
            continue
        counts[each.source] = counts.get(each.source, 0) + 1
        if counts[each.source] > most:
            dropped[each.row] = f"its source has said more than {most} rows' worth"
            continue
        by_row.setdefault(each.row, {}).setdefault(each.answer, []).append(each.source)
    answers: dict[str, tuple[str, float]] = {}
    for row, said in by_row.items():
        ranked = sorted(said, key=lambda answer: len(said[answer]), reverse=True)
        if len(ranked) > 1 and len(said[ranked[0]]) == len(said[ranked[1]]):
            dropped[row] = "its sources contradict each other"
            continue
        answers[row] = (ranked[0], WEIGHT)
        dropped.pop(row, None)
    weight = sum(each for _, each in answers.values())
    limit = SHARE_OF_ALL * lessons
    if weight > limit:
        answers = {row: (answer, each * limit / weight) for row, (answer, each) in answers.items()}
    return Believed(answers, quarantined, dropped)


def _quarantined(claims: Sequence[Said], truths: Mapping[str, str]) -> dict[str, str]:
    """Sources that said the wrong thing too often where it is known what is right."""
    seen: dict[str, list[bool]] = {}
    for each in claims:
        if each.row in truths:
            seen.setdefault(each.source, []).append(each.answer.strip() == truths[each.row].strip())
    found = {}
    for source, right in seen.items():
        wrong = right.count(False)
        if len(right) >= _JUDGED and wrong > _WRONG * len(right):
            found[source] = f"{source} was wrong in {wrong} of {len(right)} rows whose truth is known"
    return found
