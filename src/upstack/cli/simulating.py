"""The simulated models of the demo: scripted providers on loopback that answer as the generated traffic says."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from upstack.core.traffic import RecordedAnswer, TrafficRow
from upstack.testing import Answer, ChatRequest, ScriptedProvider

STRANGER = "I am a simulated model and know the tickets of the demo only."


def provider_of(name: str, rows: Sequence[TrafficRow]) -> ScriptedProvider:
    """Make the provider that gives the answers of the route `name`; whatever else it is asked, it says what it is."""
    return ScriptedProvider(_script(name, rows))


def _script(name: str, rows: Sequence[TrafficRow]) -> Callable[[ChatRequest], Answer]:
    by_ticket: dict[str, list[RecordedAnswer]] = {}
    for row in rows:
        by_ticket.setdefault(str(row.messages[-1]["content"]), []).append(row.answers[name])
    turns = {ticket: itertools.cycle(answers) for ticket, answers in by_ticket.items()}

    def answer(request: ChatRequest) -> Answer:
        known = turns.get(request.last_user_text)
        if known is None:
            return Answer(STRANGER)
        recorded = next(known)
        return Answer(
            recorded.content,
            finish_reason=recorded.finish_reason,
            input_tokens=recorded.input_tokens,
            output_tokens=recorded.output_tokens,
        )

    return answer
