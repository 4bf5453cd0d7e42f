"""Near-duplicates: which texts are so alike that one must not be learned from while another is evidence. Pure.

Texts are alike where half of their shingles are the same (Jaccard): pairs of words, or runs of characters where there
are no blanks. What every fiftieth text has is left out: a template with another number in it is no duplicate.
MinHash finds the candidates: Broder, On the resemblance and containment of documents, 1997.
Needs the extra `learn`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

_BANDS, _DEPTH = 32, 4
_ALIKE = 0.5
_FIVE = 5  # characters of a shingle where there are no blanks
# Of texts that come one by one: what was found on a made-up set of near-copies in three languages, docs/benchmarks.md.
_MORE_BANDS, _LESS_DEPTH = 24, 3
_NEARLY = 0.45
_PAIR = 2  # one other character in twelve leaves less than half of the runs of five
_COMMON = 0.02  # share of the texts from which on a shingle is part of a template
_FEW = 10  # texts that may share a shingle in any case
_COMPARED = 3  # members of a bucket that a newcomer is compared with
_LONGEST = 20_000  # characters of a text that are looked at


def clusters(texts: Sequence[str]) -> list[int]:
    """Give for each text the index of the first one of its cluster, which may be itself."""
    from rensa import RMinHash  # noqa: PLC0415 - an extra's

    parents = list(range(len(texts)))
    encodable = [text[:_LONGEST].encode("utf-8", "replace").decode() for text in texts]
    folded = [" ".join(text.casefold().split()) for text in encodable]
    first: dict[str, int] = {}
    for index, text in enumerate(folded):
        parents[index] = first.setdefault(text, index)
    different = list(first.values())
    sets = _without_templates([_shingles(folded[index], _FIVE) for index in different])
    kept = [(index, shingles) for index, shingles in zip(different, sets, strict=True) if shingles]
    digests = RMinHash.digests_from_token_sets([list(each) for _, each in kept], _BANDS * _DEPTH, 1)
    buckets: dict[tuple[int, ...], list[int]] = {}
    for position, digest in enumerate(digests):
        for band in range(_BANDS):
            bucket = buckets.setdefault((band, *digest[band * _DEPTH : (band + 1) * _DEPTH]), [])
            for other in bucket:
                if _alike(kept[position][1], kept[other][1], _ALIKE):
                    _join(parents, kept[position][0], kept[other][0])
            if len(bucket) < _COMPARED:
                bucket.append(position)
    return [_root(parents, index) for index in range(len(texts))]


class Clusters:
    """Texts that come one by one. What was said of one stays, whatever comes later, however often it is looked."""

    def __init__(self) -> None:
        """There are none yet."""
        self._parents: list[int] = []
        self._sets: list[set[str]] = []
        self._counts: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self._buckets: dict[tuple[int, ...], list[int]] = {}

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self._parents)

    def add(self, text: str) -> int:
        """Take a text; gives the index of the first one of its cluster, which may be itself."""
        from rensa import RMinHash  # noqa: PLC0415 - an extra's

        index = len(self._parents)
        self._parents.append(index)
        folded = " ".join(text[:_LONGEST].encode("utf-8", "replace").decode().casefold().split())
        same = self._first.setdefault(folded, index)
        if same != index:
            self._sets.append(set())
            self._parents[index] = same
            return _root(self._parents, index)
        shingles = _shingles(folded, _PAIR)
        self._counts.update(shingles)
        most = max(_FEW, _COMMON * len(self._first))
        shingles = {each for each in shingles if self._counts[each] <= most}
        self._sets.append(shingles)
        if shingles:
            hashed = RMinHash(_MORE_BANDS * _LESS_DEPTH, 1)  # of one text: ten times as fast as the way for many
            hashed.update(list(shingles))
            self._place(index, hashed.digest())
        return _root(self._parents, index)

    def root(self, index: int) -> int:
        """The first text of its cluster as it is now: clusters are joined by what comes later."""
        return _root(self._parents, index)

    def _place(self, index: int, digest: Sequence[int]) -> None:
        for band in range(_MORE_BANDS):
            key = (band, *digest[band * _LESS_DEPTH : (band + 1) * _LESS_DEPTH])
            bucket = self._buckets.setdefault(key, [])
            for other in bucket:
                if _alike(self._sets[index], self._sets[other], _NEARLY):
                    _join(self._parents, index, other)
            if len(bucket) < _COMPARED:
                bucket.append(index)


def place_of(text: str, seed: int) -> float:
    """Where in 0 to 1 a cluster stands, by the text it began with: for ever the same, whatever else there is."""
    digest = hashlib.sha256(f"{seed}\0{text}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7]) / 2**56


def _shingles(text: str, size: int) -> set[str]:
    words = text.split(" ")
    if len(text) > 15 * len(words):  # written without blanks
        return {text[at : at + size] for at in range(max(1, len(text) - size + 1))}
    return {f"{one} {other}" for one, other in pairwise(words)} or {text}


def _without_templates(sets: list[set[str]]) -> list[set[str]]:
    counts = Counter(shingle for each in sets for shingle in each)
    most = max(_FEW, _COMMON * len(sets))
    return [{shingle for shingle in each if counts[shingle] <= most} for each in sets]


def _alike(one: set[str], other: set[str], least: float) -> bool:
    both = len(one & other)
    return both >= least * (len(one) + len(other) - both)


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


def _join(parents: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first
