"""Which rows are learned from, which are evidence, and which are kept to see what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from upstack.core.traffic import TrafficRow, prompt_of
from upstack.inference.clusters import clusters, place_of

FIT_SHARE = 0.4  # of the calibration rows


class Split(msgspec.Struct, frozen=True):
    """Indices of rows; no cluster is in two of these."""

    fit: list[int]
    evidence: list[int]  # one of each cluster, in the order of the requests
    test: list[int]
    cluster: list[int]  # of each row: the index of its first


def split(rows: Sequence[TrafficRow], calibrate: float, seed: int, fit_share: float = FIT_SHARE) -> Split:
    """Put each cluster of near-duplicates into one part, by the hash of the text it began with."""
    texts = [prompt_of(row) for row in rows]
    cluster = clusters(texts)
    places = {first: place_of(texts[first], seed) for first in set(cluster)}
    order = sorted(range(len(rows)), key=lambda at: (rows[at].time or 0.0, at))
    fit = [at for at in order if places[cluster[at]] < calibrate * fit_share]
    evidence = [at for at in order if calibrate * fit_share <= places[cluster[at]] < calibrate]
    test = [at for at in order if places[cluster[at]] >= calibrate]
    firsts = {cluster[at]: at for at in reversed(evidence)}
    return Split(fit, [at for at in evidence if firsts[cluster[at]] == at], test, cluster)


def folds_of(rows: Sequence[TrafficRow], count: int = 5) -> NDArray[np.int64]:
    """Put each cluster of near-duplicates into one of `count` folds."""
    texts = [prompt_of(row) for row in rows]
    return np.array([int(place_of(texts[first], 0) * count) for first in clusters(texts)])
