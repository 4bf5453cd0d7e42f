"""From a text to what is counted in it: runs of words, and of characters within words. Pure."""

from __future__ import annotations

import re

WORDS = (1, 2)  # lengths of runs of words
CHARACTERS = (2, 4, 6)  # lengths of runs of characters
_HALF = 2_000  # characters of each end of a longer text
_WORD = re.compile(r"\w\w+")


def shorten(text: str) -> str:
    """Leave out the middle of a long text, so that a score takes milliseconds whatever comes."""
    return text if len(text) <= 2 * _HALF else f"{text[:_HALF]} {text[-_HALF:]}"


def words(text: str) -> list[str]:
    """List the runs of words of two letters and more, in lower case."""
    found = _WORD.findall(text.lower())
    return [" ".join(found[at : at + length]) for length in WORDS for at in range(len(found) - length + 1)]


def characters(text: str) -> list[str]:
    """List the runs of characters of each word, with a blank at both its ends."""
    found: list[str] = []
    for word in text.lower().split():
        padded = f" {word} "
        size = len(padded)
        for length in CHARACTERS:
            if length >= size:
                found.append(padded)
                break
            found += [padded[at : at + length] for at in range(size - length + 1)]
    return found
