"""Fault reports as tests make them up: traffic of a task whose answers are few and come again."""

from __future__ import annotations

import random

from upstack.core.traffic import RecordedAnswer, TrafficRow

REFERENCE = "openai/gpt-4"
CREWS = {
    "pump": ("seal leaks", "no pressure", "cavitation noise", "impeller worn", "suction blocked"),
    "conveyor": ("belt slips", "roller seized", "idler squeals", "belt torn", "tracking off"),
    "sensor": ("reads zero", "signal drifts", "cable broken", "reading frozen", "loop open"),
    "crane": ("hook bent", "brake slow", "rope frayed", "slew motor hot", "limit switch stuck"),
}
_PLACES = ("line", "hall", "unit", "bay", "station", "dock", "north", "south", "lower", "upper", "old", "urgent")


def reports(count: int, seed: int = 0, wrong: float = 0.1) -> list[TrafficRow]:
    """Make rows; `wrong`: the share of the reference's answers that are not right."""
    rng = random.Random(seed)
    rows = []
    for at in range(count):
        crew = rng.choice(list(CREWS))
        words = rng.choice(CREWS[crew])
        text = f"{words} {' '.join(rng.choice(_PLACES) for _ in range(4))} {rng.randrange(10**5)}"
        said = rng.choice([each for each in CREWS if each != crew]) if rng.random() < wrong else crew
        rows.append(
            TrafficRow(
                id=f"row-{seed}-{at}",
                task="triage",
                messages=({"role": "system", "content": "Which crew?"}, {"role": "user", "content": text}),
                answers={REFERENCE: RecordedAnswer(said, 40, 2)},
                truth=crew,
            )
        )
    return rows
