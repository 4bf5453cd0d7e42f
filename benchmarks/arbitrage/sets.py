"""The recorded sets as boards."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

from upstack.application.data.recorded import prices_beside
from upstack.core.traffic import RecordedAnswer, read_traffic
from upstack.inference.backtest.board import Board
from upstack.inference.graders.making import make_grader

_GRADER = "exact:answer,case,space"


def board(path: Path, reference: str, candidates: Sequence[str] = ()) -> Board:
    """All rows of a file as one task, whatever they are called there; no `candidates`: all others."""
    rows = list(read_traffic(path))
    names = [reference, *(candidates or sorted({name for row in rows for name in row.answers} - {reference}))]
    file = prices_beside(path)
    prices = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8"))["prices"]

    def cost(route: str, answer: RecordedAnswer) -> float:
        price = prices.get(route)
        if price is None:  # a set that is about calls: the reference costs 1, others a tenth
            return 1.0 if route == reference else 0.1
        return (answer.input_tokens * float(price["input"]) + answer.output_tokens * float(price["output"])) / 1e6

    return Board(rows, names, make_grader(_GRADER), cost)
