"""From a text to what is counted in it: runs of words, and of characters within words. Pure.

A text falls into pieces, and each piece into runs: what the runs of a piece are can be remembered by whoever sees many
texts.
"""

from __future__ import annotations

import re
from itertools import pairwise

CHARACTERS = (2, 4, 6)  # lengths of runs of characters
KINDS = ("words", "characters")
_HALF = 1_500  # characters of each end of a longer text
_WORD = re.compile(r"\w\w+")


def shorten(text: str) -> str:
    """Leave out the middle of a long text, so that a score takes milliseconds whatever comes."""
    return text if len(text) <= 2 * _HALF else f"{text[:_HALF]} {text[-_HALF:]}"


def pieces(kind: str, text: str) -> list[str]:
    """Take a text apart: "words" into words of two letters and more and pairs of them, "characters" into words."""
    lowered = text.lower()
    if kind == "characters":
        return lowered.split()
    found = _WORD.findall(lowered)
    return found + [f"{one} {other}" for one, other in pairwise(found)]


def runs(kind: str, piece: str) -> list[str]:
    """List the runs of a piece: of characters, with a blank at both its ends."""
    if kind == "words":
        return [piece]
    padded = f" {piece} "
    size = len(padded)
    found: list[str] = []
    for length in CHARACTERS:
        if length >= size:
            found.append(padded)
            break
        found += [padded[at : at + length] for at in range(size - length + 1)]
    return found
