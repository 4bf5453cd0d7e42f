"""Made-up recorded traffic whose true losses are known."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from upstack.core.traffic import RecordedAnswer, TrafficRow

REFERENCE = "big/reference"
_WORDS = ("pump", "valve", "bearing", "seal", "motor", "belt", "hose", "filter", "gear", "shaft", "fan", "duct")


def made_rows(
    count: int,
    wrong: Mapping[str, float],
    seed: int = 0,
    *,
    task: str = "triage",
    labelled: bool = True,
    hard: Sequence[str] = (),
) -> list[TrafficRow]:
    """Rows whose routes err with the given chances, independently; requests with a word of `hard` always mislead."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        words = draw.choices(_WORDS, k=6)
        truth = draw.choice("ABCD")
        misled = any(word in hard for word in words)
        answers = {}
        for route, chance in wrong.items():
            err = draw.random() < chance or (misled and route != REFERENCE)
            said = draw.choice([letter for letter in "ABCD" if letter != truth]) if err else truth
            answers[route] = RecordedAnswer(said, 40, 2, loss=float(err) if labelled else None)
        text = f"Case {number} of {draw.random():.9f}: {' '.join(words)}. Which part is it?"
        rows.append(
            TrafficRow(f"r{number}", task, ({"role": "user", "content": text},), answers, truth if labelled else None)
        )
    return rows


def cost_of(route: str, answer: RecordedAnswer) -> float:
    """What an answer costs in USD: the reference's a dollar a thousand tokens, others a twentieth of it."""
    return (answer.input_tokens + answer.output_tokens) / (1_000 if route == REFERENCE else 20_000)
