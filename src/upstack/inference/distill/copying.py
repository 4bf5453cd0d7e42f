"""Learns which of the pieces of a request that a pattern finds is the one to copy. Needs the extra `learn`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from upstack.foundation.students.copying import Copier, candidates
from upstack.foundation.students.features import number_of

_LOOSENESS = 3.0
_LEAST = 2  # candidates that must have a sign


def learn_copier(pattern: str, examples: Sequence[tuple[str, str | None, float]]) -> Copier:
    """Learn from requests, what was copied of each (None: nothing), and what that weighs."""
    compiled = re.compile(pattern)
    found = [
        (signs, value == right, weight)
        for text, right, weight in examples
        for value, signs in candidates(compiled, text)
    ]
    counts = Counter(sign for signs, _, _ in found for sign in signs)
    names = sorted(sign for sign, count in counts.items() if count >= _LEAST)
    labels = np.array([right for _, right, _ in found], int)
    if not names or labels.min() == labels.max():
        return Copier(pattern, {number_of("any"): 4.0 if len(labels) and labels.all() else -4.0})
    places = {name: at for at, name in enumerate(names)}
    columns = [[places[sign] for sign in signs if sign in places] for signs, _, _ in found]
    starts = np.cumsum([0, *map(len, columns)])
    flat = [place for each in columns for place in each]
    rows = sparse.csr_matrix((np.ones(len(flat)), flat, starts), shape=(len(found), len(names)))
    model = LogisticRegression(C=_LOOSENESS, max_iter=300)
    model.fit(rows, labels, sample_weight=[weight for _, _, weight in found])
    weights = dict(zip(names, model.coef_[0].tolist(), strict=True))
    weights["any"] = weights.get("any", 0.0) + float(model.intercept_[0])
    return Copier(pattern, {number_of(name): weight for name, weight in weights.items() if weight})
