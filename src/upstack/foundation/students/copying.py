"""Fields that copy: a pattern finds candidates in the request, and what stands around them says which one is meant."""

from __future__ import annotations

import math
import re

import msgspec

from upstack.foundation.students.features import number_of

_MOST = 200  # candidates looked at
_WORD = re.compile(r"\w+")
_NEAR = 3  # words to each side
_MARGIN = 80  # characters in which these are looked for


class Copier(msgspec.Struct, frozen=True, dict=True):
    """Weighs the candidates of a request by signs of their places. The value may be none of them."""

    pattern: str
    weights: dict[int, float]  # by the number of a sign
    nothing: float = 0.0  # the weight of "none of these"

    def choose(self, text: str) -> tuple[str | None, float]:
        """The candidate that looks best, and its chance; None where it looks as if none is meant."""
        found = candidates(self._compiled(), text)
        if not found:
            return None, 1.0
        weights = self.weights
        logits = [sum(weights.get(number_of(sign), 0.0) for sign in signs) for _, signs in found]
        by_value: dict[str | None, float] = {None: math.exp(min(self.nothing, 50.0))}
        for (value, _), logit in zip(found, logits, strict=True):
            by_value[value] = by_value.get(value, 0.0) + math.exp(min(logit, 50.0))
        best = max(by_value, key=lambda value: by_value[value])
        return best, by_value[best] / sum(by_value.values())

    def _compiled(self) -> re.Pattern[str]:
        compiled: re.Pattern[str] | None = self.__dict__.get("compiled")
        if compiled is None:
            compiled = self.__dict__["compiled"] = re.compile(self.pattern)
        return compiled


def candidates(pattern: re.Pattern[str], text: str) -> list[tuple[str, list[str]]]:
    """List what a pattern finds, each with the signs of its place. A group, where there is one, is what is copied."""
    matches = [match for match, _ in zip(pattern.finditer(text), range(_MOST), strict=False)]
    found = []
    for at, match in enumerate(matches):
        group = 1 if match.re.groups and match[1] is not None else 0
        first, last = match.span(group)
        before = _WORD.findall(text[max(0, first - _MARGIN) : first].lower())[-_NEAR:]
        after = _WORD.findall(text[last : last + _MARGIN].lower())[:_NEAR]
        signs = ["any", f"at {min(at, 5)}", f"of {min(len(matches), 5)}"]
        signs += [f"last {at == len(matches) - 1}", f"before {before[-1] if before else ''}"]
        signs += [f"near {word}" for word in before] + [f"then {word}" for word in after[:1]]
        found.append((match[group], signs))
    return found
