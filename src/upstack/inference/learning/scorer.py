"""A learned score: how much a request would gain from the reference. Served by numpy alone, in about a millisecond.

Two logistic regressions say how likely the plan's answer is wrong and how likely the reference's would be; their
difference is what escalating gains. A request that both get wrong gains nothing, however hard it is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from upstack.core.grams import pieces, runs, shorten
from upstack.inference.learning import signs
from upstack.inference.learning.signs import Answer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_REMEMBERED = 10_000  # pieces of texts


class Block(msgspec.Struct, frozen=True):
    """What one kind of run in one text says. Arrays of float32, a row for each word of the vocabulary."""

    source: int  # which text: -1 the request, else the answer of the arm with this index
    kind: str  # one of grams.KINDS
    vocabulary: tuple[str, ...]
    idf: bytes
    weights: bytes  # vocabulary x heads, idf already in it


class Scorer(msgspec.Struct, frozen=True, dict=True):
    """All that a score needs. Heads: the plan's loss, the reference's loss (logits), the logarithm of its cost."""

    arms: int  # answers that are looked at; 0: the request alone
    mean: tuple[float, ...]  # of the signs
    scale: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]  # heads x signs
    bias: tuple[float, ...]  # of the heads
    blocks: tuple[Block, ...] = ()

    def gain(self, prompt: str, answers: Sequence[Answer] = (), same: Sequence[bool] = ()) -> tuple[float, float]:
        """Say by how much the loss would be expected to fall, in [-1, 1], and what that would cost, relatively."""
        import numpy as np  # noqa: PLC0415 - an extra's

        mean, scale, weights, bias = self._numbers()
        heads = bias + weights @ ((np.array(of(prompt, answers, same)) - mean) / scale)
        for table in self._tables():
            found = table.find(prompt if table.source < 0 else answers[table.source].content)
            if found:
                rows, counts = np.unique(np.fromiter(found, np.int64, len(found)), return_counts=True)
                dampened = 1.0 + np.log(counts)
                heads += dampened @ table.weights[rows] / np.linalg.norm(dampened * table.idf[rows])
        return sigmoid(heads[0]) - sigmoid(heads[1]), math.exp(heads[2])

    def digest(self) -> str:
        """Name it by what it is."""
        return hashlib.sha256(msgspec.msgpack.encode(self)).hexdigest()[:16]

    def _numbers(self) -> tuple[Floats, Floats, Floats, Floats]:
        found: tuple[Floats, Floats, Floats, Floats] | None = self.__dict__.get("numbers")
        if found is None:
            import numpy as np  # noqa: PLC0415 - an extra's

            made = (np.array(self.mean), np.array(self.scale), np.array(self.weights), np.array(self.bias))
            found = self.__dict__["numbers"] = made
        return found

    def _tables(self) -> list[_Table]:
        found: list[_Table] | None = self.__dict__.get("tables")
        if found is None:
            found = self.__dict__["tables"] = [_Table(block, len(self.bias)) for block in self.blocks]
        return found


class _Table:
    """A block ready to be looked up in, which remembers the pieces of texts that it has seen."""

    def __init__(self, block: Block, heads: int) -> None:
        import numpy as np  # noqa: PLC0415 - an extra's

        self.source, self._kind = block.source, block.kind
        self.idf: Floats = np.frombuffer(block.idf, np.float32).astype(float)
        weights = np.frombuffer(block.weights, np.float32).astype(float)
        self.weights: Floats = weights.reshape(len(self.idf), heads)
        self._vocabulary = {run: at for at, run in enumerate(block.vocabulary)}
        self._seen: dict[str, list[int]] = {}

    def find(self, text: str) -> list[int]:
        """List the rows of the runs in a text, as often as they occur."""
        split = pieces(self._kind, shorten(text))
        if self._kind == "words":  # each is a run itself
            return [self._vocabulary[run] for run in split if run in self._vocabulary]
        found: list[int] = []
        seen = self._seen
        for piece in split:
            known = seen.get(piece)
            if known is None:
                known = self._look_up(piece)
            found += known
        return found

    def _look_up(self, piece: str) -> list[int]:
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        vocabulary = self._vocabulary
        known = self._seen[piece] = [vocabulary[run] for run in runs(self._kind, piece) if run in vocabulary]
        return known


def of(prompt: str, answers: Sequence[Answer], same: Sequence[bool]) -> list[float]:
    """Put all signs into one row."""
    row = signs.of_prompt(prompt)
    for answer in answers:
        row += signs.of_answer(prompt, answer)
    return row + signs.of_agreement(same)


def worth(gain: float, cost: float) -> float:
    """Rank by what is gained for what it costs; where something is lost, the dearest stands last."""
    return gain / cost if gain > 0 else gain * cost


def sigmoid(logit: float) -> float:
    """The chance that a logit stands for."""
    return 0.5 * (1.0 + math.tanh(logit / 2.0))
