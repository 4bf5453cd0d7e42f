"""What a plan of several routes has heard of a request so far, and what it does next."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from upstack.application.gateway.exchange.trial import Trial
from upstack.core.completion import content_of, finish_reason_of, logprobs_of
from upstack.core.traffic import text_of
from upstack.core.types import Request, Terms
from upstack.inference.graders.base import Grader
from upstack.inference.graders.making import NAMES, make_grader
from upstack.inference.graders.tools import ToolWise
from upstack.inference.learning.signs import Answer, answer_of
from upstack.inference.strategies.base import Ask, Serve, Take
from upstack.inference.strategies.policy import Policy

_QUICK_BYTES = 16_384  # of answers, which are compared in less than a millisecond


class Deliberation:
    """One request under a policy. Also what the policy sees of it."""

    def __init__(self, policy: Policy, terms: Terms, request: Request) -> None:
        """`terms` name the reference and the grader."""
        self._policy, self._reference, self._request = policy, terms.reference[0], request
        self._own = terms.grader.partition(":")[0] not in NAMES
        self._grader = _grader(terms.grader, tuple(sorted(terms.fields.items())))
        self._answers: dict[str, Answer] = {}
        self._bytes = 0
        self.heard: dict[str, tuple[Trial, bytes]] = {}  # by route

    @property
    def prompt(self) -> str:
        """The request's text."""
        messages = msgspec.json.decode(self._request.fields["messages"])
        return text_of(messages if isinstance(messages, list) else ())

    def answer(self, route: str) -> Answer | None:
        """What a route said."""
        return self._answers.get(route)

    def same(self, one: str, other: str) -> bool:
        """Whether the grader takes two answers for the same."""
        return self._grader.same(self._answers[one].content, self._answers[other].content)

    @property
    def is_quick(self) -> bool:
        """Whether a step takes less than a millisecond."""
        return not (self._policy.learns or self._own) and self._bytes <= _QUICK_BYTES

    def hear(self, trial: Trial, answer: bytes, output_tokens: int) -> None:
        """Take in what a route said: a chat completion."""
        route = trial.target.route.name
        self.heard[route] = (trial, answer)
        self._bytes += len(answer)
        self._answers[route] = answer_of(
            content_of(answer), output_tokens, logprobs_of(answer), finish_reason_of(answer)
        )

    def step(self) -> Ask | Take | Serve:
        """Say what is next. EvidenceError where the grader fails."""
        return self._policy.step(self._reference, self)

    def escalate(self) -> Take:
        """Have the reference answer, whatever was heard."""
        return Take(self._reference)


@lru_cache(64)
def _grader(name: str, fields: tuple[tuple[str, float], ...]) -> Grader:
    weights: Mapping[str, float] = dict(fields)
    return ToolWise(make_grader(name, weights))
