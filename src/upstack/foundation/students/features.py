"""From a text to the numbers a linear student weighs: runs of words and of characters, weighted by how rare they are.

A run is kept as a number that is made of it, so that no text of those learned from stands in a student.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from upstack.core.grams import KINDS, pieces, runs, shorten

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REMEMBERED = 10_000  # pieces of texts


class Vocabulary(msgspec.Struct, frozen=True):
    """The runs of one kind that a student knows."""

    numbers: NDArray[np.uint32]  # of the runs, ascending
    rarity: NDArray[np.float32]  # inverse document frequency of each


class Features:
    """Vocabularies ready to be looked up in. A text becomes a sparse vector in which each kind has length 1.

    Runs that are not known are as long as the rarest that are, so that of a text that says little to a student little
    is seen.
    """

    def __init__(self, vocabularies: Sequence[Vocabulary]) -> None:
        """`vocabularies`: one for each of `grams.KINDS`."""
        self.size = sum(len(each.numbers) for each in vocabularies)
        self._places: list[dict[int, int]] = []
        self._rarity: list[float] = []
        for each in vocabularies:
            start = len(self._rarity)
            self._places.append({number: start + at for at, number in enumerate(each.numbers.tolist())})
            self._rarity += each.rarity.tolist()
        self._rarest = [max(each.rarity.tolist(), default=1.0) for each in vocabularies]
        self._seen: list[dict[str, tuple[list[int], int]]] = [{} for _ in vocabularies]

    def of(self, text: str) -> tuple[list[int], list[float]]:
        """Give the places that are not zero, and what stands there."""
        text = shorten(text)
        places: list[int] = []
        values: list[float] = []
        rarity = self._rarity
        for at, kind in enumerate(KINDS):
            there, unknown = self._find(at, kind, text)
            counts = Counter(there)
            found = [(1.0 + math.log(count)) * rarity[place] for place, count in counts.items()]
            length = math.sqrt(sum(value * value for value in found) + unknown * self._rarest[at] ** 2)
            places += counts
            values += [value / length for value in found]
        return places, values

    def _find(self, at: int, kind: str, text: str) -> tuple[list[int], int]:
        """The places of the runs that are known, and how many are not."""
        known, seen = self._places[at], self._seen[at]
        found: list[int] = []
        unknown = 0
        for piece in pieces(kind, text):
            those = seen.get(piece)
            if those is None:
                if len(seen) >= _REMEMBERED:
                    seen.clear()
                numbers = map(number_of, runs(kind, piece))
                places = [known.get(number, -1) for number in numbers]
                those = seen[piece] = ([place for place in places if place >= 0], places.count(-1))
            found += those[0]
            unknown += those[1]
        return found, unknown


def number_of(run: str) -> int:
    """What a run is kept as, in 32 bits. Two that share a number are taken for one."""
    return zlib.crc32(run.encode("utf-8", "surrogatepass"))


def vocabulary_of(texts: Sequence[str], kind: str, least: int) -> Vocabulary:
    """List the runs that at least so many of these texts have; what all of them have says nothing."""
    import numpy as np  # noqa: PLC0415 - an extra's

    documents: Counter[int] = Counter()
    for text in texts:
        documents.update({number_of(run) for piece in pieces(kind, shorten(text)) for run in runs(kind, piece)})
    most = len(texts) - 1 if len(texts) > 2 else len(texts)
    numbers = sorted(number for number, count in documents.items() if least <= count <= most)
    rarity = [1.0 + math.log((1 + len(texts)) / (1 + documents[number])) for number in numbers]
    return Vocabulary(np.array(numbers, np.uint32), np.array(rarity, np.float32))
