"""From a text to what is counted in it: runs of words, and of characters within words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

WORDS = (1, 2, 3)  # lengths of runs of words
CHARACTERS = (2, 3, 4, 5, 6)  # lengths of runs of characters
_HALF = 2_000  # characters of each end of a longer text
_WORD = re.compile(r"\w\w+")


def shorten(text: str) -> str:
    """Leave out the middle of a long text, so that a score takes no longer than a millisecond or so."""
    return text if len(text) <= 2 * _HALF else f"{text[:_HALF]} {text[-_HALF:]}"


def words(text: str) -> Iterator[str]:
    """Yield the runs of words of two letters and more, in lower case."""
    found = _WORD.findall(text.lower())
    for length in WORDS:
        for at in range(len(found) - length + 1):
            yield " ".join(found[at : at + length])


def characters(text: str) -> Iterator[str]:
    """Yield the runs of characters of each word, with a blank at both its ends."""
    for word in text.lower().split():
        padded = f" {word} "
        for length in CHARACTERS:
            if length >= len(padded):
                yield padded
                break
            for at in range(len(padded) - length + 1):
                yield padded[at : at + length]
