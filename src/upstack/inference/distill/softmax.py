"""Multinomial logistic regression on rows that are fewer than their features: fitted in the space that they span.

The penalty only sees lengths, so that rows turned by an isometry have the same solution; the Cholesky factor of their
inner products is such a turn, and has as many columns as there are rows. Needs the extra `learn`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_MOST_TURNED = 4_000  # rows; of more the inner products take too long
_JITTER = 1e-8
_STEPS = 200
_TOLERANCE = 1e-3


class Space:
    """Rows to learn from: as they are, or turned."""

    def __init__(self, rows: Any) -> None:
        """`rows`: n x features, dense or sparse."""
        self._rows = rows
        self._factor: Floats | None = None
        self.turned: Any = rows
        count, width = rows.shape
        if count < width and count <= _MOST_TURNED:
            products = rows @ rows.T
            dense: Floats = np.asarray(products.todense() if sparse.issparse(products) else products, np.float64)
            products = dense + _JITTER * np.eye(count)
            self._factor = self.turned = linalg.cholesky(products, lower=True)

    def back(self, weights: Floats) -> NDArray[np.float32]:
        """From weights in this space (its columns x classes) to weights of the features."""
        if self._factor is not None:
            weights = self._rows.T @ linalg.solve_triangular(self._factor, weights, lower=True, trans="T")
        return np.asarray(weights, np.float32)


def fit(rows: Any, labels: Rows, weights: Floats, classes: int, looseness: float) -> tuple[Floats, Floats]:
    """Fit; gives weights (columns x classes) and biases. Classes that do not occur are never chosen.

    It is never begun from a solution that knows more rows: what they said would not be forgotten.
    """
    there = np.unique(labels)
    whole, bias = np.zeros((rows.shape[1], classes)), np.full(classes, -30.0)
    if len(there) == 1:
        bias[there[0]] = 0.0
        return whole, bias
    model = LogisticRegression(C=looseness, max_iter=_STEPS, tol=_TOLERANCE)
    model.fit(rows, labels, sample_weight=weights)
    if len(there) == 2:
        whole[:, there[1]], bias[there] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        whole[:, there], bias[there] = model.coef_.T, model.intercept_
    return whole, bias
