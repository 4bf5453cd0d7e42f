"""Which rows would teach something wrong or nothing: conflicts, outliers. Each is dropped with its reason. Pure."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Sequence
from statistics import median

from upstack.inference.distill.lessons import Lesson

_FEW = 30  # rows that do not say what is usual
_FAR = 8.0  # times the usual spread of lengths, above which a text is an outlier
_RARE = 0.02  # share of the rows below which a script is foreign here
_WORD = re.compile(r"\d+(?:[.,]\d+)*|\w+")


def clean(lessons: Sequence[Lesson]) -> tuple[list[Lesson], dict[str, str]]:
    """Leave out what is empty, contradicted, far longer than usual, or in another script.

    Of rows that say the same, word for word and number for number, those count that have the answer most of them have;
    where people have spoken, only these. Texts that are merely alike may well have different answers.
    """
    dropped: dict[str, str] = {}
    kept = [each for each in lessons if _is_told(each, dropped)]
    for several in _groups(kept).values():
        _settle(several, dropped)
    kept = [each for each in kept if each.id not in dropped]
    _unusual(kept, dropped)
    return [each for each in kept if each.id not in dropped], dropped


def _is_told(lesson: Lesson, dropped: dict[str, str]) -> bool:
    if lesson.text.strip() and lesson.answer.strip():
        return True
    dropped[lesson.id] = "it says nothing" if not lesson.text.strip() else "its answer says nothing"
    return False


def _groups(lessons: Sequence[Lesson]) -> dict[str, list[Lesson]]:
    """Rows that should have one answer."""
    found: dict[str, list[Lesson]] = {}
    for each in lessons:
        found.setdefault(" ".join(_WORD.findall(each.text.casefold())), []).append(each)
    return found


def _settle(several: Sequence[Lesson], dropped: dict[str, str]) -> None:
    human = [each for each in several if each.human]
    counts = Counter(each.answer.strip() for each in human or several)
    if human and len(human) < len(several):
        for each in several:
            if not each.human and each.answer.strip() not in counts:
                dropped[each.id] = "people say something else of the same request"
    if len(counts) < 2:
        return
    (first, most), (_, next_most) = counts.most_common(2)
    for each in human or several:
        if most == next_most:
            dropped[each.id] = "the same request has other answers, as often"
        elif each.answer.strip() != first:
            dropped[each.id] = "the same request mostly has another answer"


def _unusual(lessons: Sequence[Lesson], dropped: dict[str, str]) -> None:
    if len(lessons) < _FEW:
        return
    lengths = [math.log1p(len(each.text)) for each in lessons]
    middle = median(lengths)
    spread = max(0.1, median(abs(each - middle) for each in lengths))
    scripts = [_script(each.text) for each in lessons]
    counts = Counter(scripts)
    for lesson, length, script in zip(lessons, lengths, scripts, strict=True):
        if lesson.human:
            continue  # a person looked at it
        if length - middle > _FAR * spread:
            dropped[lesson.id] = "far longer than what is usual here"
        elif counts[script] < _RARE * len(lessons):
            dropped[lesson.id] = f"in another script than what is usual here: {script}"


@functools.lru_cache(50_000)  # the same rows are looked at again and again
def _script(text: str) -> str:
    """In which script most of a text's letters are."""
    counts = Counter(_script_of(each) for each in text[:500] if each.isalpha())
    return counts.most_common(1)[0][0] if counts else "none"


_BLOCKS = ((0x0250, "Latin"), (0x0400, "Greek"), (0x0530, "Cyrillic"), (0x0600, "Hebrew"), (0x0780, "Arabic"))


def _script_of(letter: str) -> str:
    code = ord(letter)
    for end, name in _BLOCKS:
        if code < end:
            return name
    if 0x3040 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0x20000 <= code <= 0x3FFFF:
        return "Chinese or Japanese"
    return "Hangul" if 0xAC00 <= code <= 0xD7AF else "other"
