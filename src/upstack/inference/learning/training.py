"""Trains scorers by scikit-learn (the extra `learn`), away from whatever serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression, Ridge

from upstack.core.grams import pieces, runs, shorten
from upstack.inference.learning.scorer import Block, Scorer

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_TWICE = 2  # rows that have a run: what only one has says nothing of others
_STEPS = 300
_TURNED = 1_500  # rows up to which that is worth it


class Recipe(msgspec.Struct, frozen=True):
    """How a scorer is trained."""

    text: bool = True  # look at the words, and not at the signs alone
    weight: float = 0.05  # of the signs beside the words, of which all of one kind together have length 1
    looseness: float = 0.5  # the inverse of the penalty, C
    agreement: float = 1.5  # the weight of which answers are the same: no sign says more


RECIPES = (
    Recipe(),
    Recipe(weight=0.3, looseness=0.3),
    Recipe(text=False, weight=0.3, looseness=0.1),
    Recipe(text=False, weight=0.1, looseness=0.03),
)


class Weighed(msgspec.Struct, frozen=True):
    """Texts as some rows see them: what they have at least twice, by how rare it is, each text of length 1."""

    columns: NDArray[np.int64]
    idf: Floats
    matrix: sparse.csr_matrix  # all rows by these columns
    alike: Floats | None  # the rows' products with each other, where they are few


class Counted:
    """How often what runs occur in texts: counts once, for whatever is trained on some of them."""

    def __init__(self, texts: Sequence[str], kind: str) -> None:
        """`kind` is one of `grams.KINDS`."""
        self.kind = kind
        names: dict[str, int] = {}
        columns: list[int] = []
        starts = [0]
        for text in texts:
            for piece in pieces(kind, shorten(text)):
                columns += [names.setdefault(run, len(names)) for run in runs(kind, piece)]
            starts.append(len(columns))
        ones = np.ones(len(columns), np.float32)
        self._matrix = sparse.csr_matrix((ones, np.array(columns, np.int32), starts), (len(texts), len(names)))
        self._matrix.sum_duplicates()
        self._matrix.data = 1.0 + np.log(self._matrix.data)
        self.names = np.array([*names, ""], object)[:-1]
        self._last: tuple[bytes, Weighed] | None = None

    def weighed(self, rows: Rows) -> Weighed:
        """Weigh what occurs as these rows see it."""
        key = rows.tobytes()
        if self._last is None or self._last[0] != key:
            self._last = (key, self._weigh(rows))
        return self._last[1]

    def _weigh(self, rows: Rows) -> Weighed:
        having = np.bincount(self._matrix[rows].indices, minlength=self._matrix.shape[1])
        columns = np.flatnonzero(having >= _TWICE)
        idf = np.log((1 + len(rows)) / (1 + having[columns])) + 1.0
        matrix = self._matrix[:, columns].multiply(idf).tocsr()
        norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
        matrix = (sparse.diags(1.0 / np.where(norms > 0, norms, 1.0)) @ matrix).tocsr()
        part = matrix[rows]
        return Weighed(columns, idf, matrix, (part @ part.T).toarray() if len(rows) <= _TURNED else None)


class Sheet:
    """Requests, and the answers that a score may look at, ready to be trained on."""

    def __init__(
        self, arms: int, signs: Floats, pairs: int, texts: Sequence[tuple[int, Callable[[], Counted]]]
    ) -> None:
        """Rows of signs, as `scorer.of` puts them together: the last ones say which of so many pairs agree.

        `texts` (-1: requests, else arms) are counted later.
        """
        self.arms, self.signs, self.pairs, self._texts = arms, signs, pairs, texts

    @cached_property
    def counted(self) -> list[tuple[int, Counted]]:
        """What occurs in the texts."""
        return [(source, count()) for source, count in self._texts]


class Design:
    """How rows are described to what learns: fixed by some rows, without their losses, then the same for all.

    Rows that are fewer than the runs in them are turned into as few columns: a penalty on the length of the weights
    does not see the difference, and there is far less to learn.
    """

    def __init__(self, sheet: Sheet, rows: Rows, recipe: Recipe) -> None:
        """Fix means, spreads, the vocabulary and what its words weigh."""
        self.sheet, self.rows, self.recipe = sheet, rows, recipe
        signs = sheet.signs[rows]
        spread = signs.std(axis=0)
        self.mean = signs.mean(axis=0)
        self.scale = np.where(spread > 0, spread, 1.0) / recipe.weight
        self.scale[signs.shape[1] - sheet.pairs :] *= recipe.weight / recipe.agreement
        self.sources = sheet.counted if recipe.text else []
        self.texts = [counted.weighed(rows) for _, counted in self.sources]
        self._turn: Floats | None = None
        alike = [text.alike for text in self.texts if text.alike is not None]
        if not alike:
            self.turned: sparse.csr_matrix | Floats = self.of(rows)
            return
        plain = self.signs(rows)
        squares, directions = np.linalg.eigh(plain @ plain.T + sum(alike))
        some = squares > squares.max() * 1e-9
        self._turn = directions[:, some] / np.sqrt(squares[some])
        self.turned = directions[:, some] * np.sqrt(squares[some])

    def of(self, rows: Rows) -> sparse.csr_matrix | Floats:
        """Describe any rows of the sheet."""
        plain = self.signs(rows)
        if not self.texts:
            return plain
        return sparse.hstack([sparse.csr_matrix(plain), *(text.matrix[rows] for text in self.texts)]).tocsr()

    def signs(self, rows: Rows) -> Floats:
        """Describe rows by their signs alone."""
        result: Floats = (self.sheet.signs[rows] - self.mean) / self.scale
        return result

    def back(self, weights: Floats) -> Floats:
        """Turn weights of the columns learned from into weights of what they came from."""
        if self._turn is None:
            return weights
        result: Floats = self.of(self.rows).T @ (self._turn @ weights)
        return result


class Trained:
    """A scorer before it is made ready to serve."""

    def __init__(self, design: Design, targets: Floats) -> None:
        """Learn from the rows of the design; `targets` of all: the plan's loss, the reference's, its cost (above 0)."""
        self._design = design
        known = targets[design.rows]
        heads = [_logistic(design.turned, known[:, head], design.recipe.looseness) for head in range(2)]
        self._heads = [(design.back(weights), bias) for weights, bias in heads]
        self._cost = _ridge(design.signs(design.rows), np.log(known[:, 2]))

    def gains(self, rows: Rows) -> tuple[Floats, Floats]:
        """Give the gain and the cost of each of these rows, as `Scorer.gain` does."""
        described = self._design.of(rows)
        wrong, also = (_chance(described @ weights + bias) for weights, bias in self._heads)
        weights, bias = self._cost
        return wrong - also, np.exp(self._design.signs(rows) @ weights + bias)

    def scorer(self) -> Scorer:
        """Make what is served."""
        design = self._design
        width = len(design.mean)
        weights = np.stack([*(learned[:width] for learned, _ in self._heads), self._cost[0]])
        return Scorer(
            design.sheet.arms,
            tuple(design.mean.tolist()),
            tuple(design.scale.tolist()),
            tuple(tuple(row) for row in weights.tolist()),
            (*(float(bias) for _, bias in self._heads), float(self._cost[1])),
            tuple(self._blocks(width)),
        )

    def _blocks(self, start: int) -> Iterator[Block]:
        design = self._design
        for (source, counted), text in zip(design.sources, design.texts, strict=True):
            width = len(text.columns)
            several = np.zeros((width, 3), np.float32)
            for head, (learned, _) in enumerate(self._heads):
                several[:, head] = learned[start : start + width] * text.idf
            start += width
            names = tuple(counted.names[text.columns].tolist())
            yield Block(source, counted.kind, names, text.idf.astype(np.float32).tobytes(), several.tobytes())


def out_of_fold(design: Design, folds: NDArray[np.int64], targets: Floats) -> tuple[Floats, Floats]:
    """Score each row of the design by what the rows of other folds taught; `folds` and `targets` of all rows."""
    rows = design.rows
    known, fold = targets[rows], folds[rows]
    gains, costs = np.zeros(len(rows)), np.ones(len(rows))
    signs = design.signs(rows)
    for each in np.unique(fold):
        left, learnt = fold == each, fold != each
        if not learnt.any():
            continue
        chances = []
        for head in range(2):
            weights, bias = _logistic(design.turned[learnt], known[learnt, head], design.recipe.looseness)
            chances.append(_chance(design.turned[left] @ weights + bias))
        gains[left] = chances[0] - chances[1]
        weights, bias = _ridge(signs[learnt], np.log(known[learnt, 2]))
        costs[left] = np.exp(signs[left] @ weights + bias)
    return gains, costs


def _chance(logits: Floats) -> Floats:
    result: Floats = 0.5 * (1.0 + np.tanh(logits / 2.0))
    return result


def _logistic(design: sparse.csr_matrix | Floats, losses: Floats, looseness: float) -> tuple[Floats, float]:
    """Fit a chance to losses in 0 to 1: each row counts as wrong by its loss, and as right by the rest."""
    if losses.min() == losses.max() and losses[0] in (0.0, 1.0):
        share = (losses.sum() + 0.5) / (len(losses) + 1)
        return np.zeros(design.shape[1]), float(np.log(share / (1 - share)))
    between = (losses > 0) & (losses < 1)
    labels, weights = (losses > 0).astype(int), np.where(between, losses, 1.0)
    if between.any():
        stack = sparse.vstack if sparse.issparse(design) else np.vstack
        design = stack([design, design[between]])
        labels = np.concatenate([labels, np.zeros(int(between.sum()), int)])
        weights = np.concatenate([weights, 1.0 - losses[between]])
    model = LogisticRegression(C=looseness, max_iter=_STEPS).fit(design, labels, sample_weight=weights)
    return model.coef_[0], float(model.intercept_[0])


def _ridge(design: Floats, values: Floats) -> tuple[Floats, float]:
    model = Ridge(alpha=1.0).fit(design, values)
    return model.coef_, float(model.intercept_)
