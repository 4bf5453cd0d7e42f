"""Simulated traffic that the project makes itself: triage of maintenance tickets by two simulated models.

No person, plant or model is behind it. The tickets are put together from phrases, the "models" are coins with stated
accuracies: SIMULATED_LARGE is right on about 97 %, SIMULATED_SMALL on about 90 %, and both fail mostly on the same
hard tickets, which also speak of a second trade. Use it to see the machinery work, never as evidence about real models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from upstack.core.config import PriceConfig
from upstack.core.traffic import RecordedAnswer, TrafficRow

SIMULATED_TASK = "simulated-ticket-triage"
SIMULATED_LARGE = "simulated/large"
SIMULATED_SMALL = "simulated/small"
SIMULATED_PRICES = {  # made up, and in the proportion that large and small models have
    SIMULATED_LARGE: PriceConfig(input=2.5, output=10.0),
    SIMULATED_SMALL: PriceConfig(input=0.15, output=0.6),
}
_HARD = 0.2  # of all tickets
# Chance to be wrong on an easy and on a hard ticket; 0.8 of the first and 0.2 of the second make 0.03 and 0.10.
_ERROR_RATES = {SIMULATED_LARGE: (0.0075, 0.12), SIMULATED_SMALL: (0.025, 0.40)}
_SPEED = {SIMULATED_LARGE: (0.7, 0.012), SIMULATED_SMALL: (0.18, 0.004)}  # seconds to begin, and per output token
_SIGNS = {
    "mechanical": (
        "the bearing housing runs hot and hums",
        "there is a grinding noise from the gearbox",
        "the coupling guard rattles and the shaft wobbles",
        "the belt slips as soon as load comes on",
        "two foundation bolts have worked loose",
    ),
    "electrical": (
        "the breaker trips a few seconds after start",
        "there is a smell of burnt insulation at the terminal box",
        "one phase reads low on the panel",
        "the contactor chatters and will not hold",
        "the motor hums but does not turn",
    ),
    "hydraulic": (
        "oil drips from the cylinder's rod seal",
        "the lift sinks slowly under load",
        "pressure falls as soon as the valve opens",
        "the hose has swollen near the fitting",
        "the pump whines and the oil foams",
    ),
    "instrumentation": (
        "the level reading jumps between empty and full",
        "the temperature shown has not moved for hours",
        "the flow meter shows flow with the valve shut",
        "the pressure transmitter drifts after each wash",
        "the position sensor sees nothing at the end stop",
    ),
    "control": (
        "the panel has lost its link to the controller",
        "the sequence stops at step four without an alarm",
        "the recipe screen freezes after login",
        "the set point goes back to its old value",
        "the controller restarts on its own at shift change",
    ),
    "safety": (
        "the emergency stop has to be pulled twice to release",
        "the light curtain lets a hand through",
        "the gate switch is bridged with wire",
        "the guard door opens while the blade still turns",
        "the gas alarm has been muted with tape",
    ),
}
SIMULATED_LABELS = tuple(_SIGNS)
_MACHINES = ("pump", "conveyor", "compressor", "mixer", "press", "filling line", "crane", "palletiser", "fan", "dryer")
_PLACES = ("in hall 1", "in hall 2", "on the north line", "in the tank farm", "at the bay", "in the boiler house")
_TIMES = ("since this morning", "since the night shift", "after the wash-down", "for two days", "after the restart")
_WISHES = ("Please send someone.", "We run at half speed.", "The line is down.", "No hurry.", "It was reported before.")
_SHAPES = (
    "{machine} {place}: {sign}, {time}. {wish}",
    "{time}, {machine} {place}. What we see: {sign}. {wish}",
    "Ticket for {machine} {place}, {time}: {sign}. {wish}",
    "{wish} {machine} {place}, {sign} {time}.",
)
_INSTRUCTION = (
    "You sort maintenance tickets of a simulated plant by the trade that has to come first. "
    f"Answer with one word: {', '.join(SIMULATED_LABELS)}."
)


def generate_traffic(n: int, seed: int = 0) -> Iterator[TrafficRow]:
    """Yield `n` simulated rows; the same `seed` gives the same ones, and a longer run begins with a shorter one's.

    Prompts hardly ever repeat: there are over a hundred million.
    """
    rng = random.Random(f"upstack-simulated-{seed}")
    for number in range(n):
        truth, other = rng.sample(SIMULATED_LABELS, 2)
        hard = rng.random() < _HARD
        ticket = _ticket(rng, truth, other if hard else None)
        prompt_tokens = (len(_INSTRUCTION) + len(ticket)) // 4 + 8
        yield TrafficRow(
            id=f"simulated-{seed}-{number}",
            task=SIMULATED_TASK,
            messages=({"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": ticket}),
            truth=truth,
            answers={
                model: _answer(rng, model, prompt_tokens, truth, other if rng.random() < errors[hard] else truth)
                for model, errors in _ERROR_RATES.items()
            },
            rights={"source": "simulated by Upstack", "licence": "CC0-1.0"},
        )


def _ticket(rng: random.Random, trade: str, second: str | None) -> str:
    sign = rng.choice(_SIGNS[trade])
    if second is not None:
        sign += f", and perhaps {rng.choice(_SIGNS[second])}"
    machine = f"{rng.choice(_MACHINES)} {rng.randrange(100, 1000)}"
    text = rng.choice(_SHAPES).format(
        machine=machine, place=rng.choice(_PLACES), sign=sign, time=rng.choice(_TIMES), wish=rng.choice(_WISHES)
    )
    return text[0].upper() + text[1:]


def _answer(rng: random.Random, model: str, input_tokens: int, truth: str, label: str) -> RecordedAnswer:
    output_tokens = len(label) // 4 + 1
    begin, per_token = _SPEED[model]
    return RecordedAnswer(
        content=label,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        latency_s=round((begin + per_token * output_tokens) * rng.lognormvariate(0.0, 0.3), 4),
        loss=float(label != truth),
        finish_reason="stop",
    )
