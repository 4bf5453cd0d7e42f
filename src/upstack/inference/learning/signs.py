"""Signs of how hard a request is, and of how much an answer can be trusted, as numbers. Pure.

None of them knows a model, a task or a language; what each is worth is learned.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from upstack.inference.arithmetic import check_arithmetic

_LEAST = -100.0  # of the logarithm of a token's probability: some say -9999 for none
_LONGEST = 20_000  # characters looked at
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_HEDGE = re.compile(r"\b(?:however|mistake|incorrect|error|wait|actually|unclear|ambiguous)\b", re.IGNORECASE)
_REFUSAL = re.compile(r"\b(?:sorry|cannot|can't|unable|as an ai)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|except|never|false|incorrect|least)\b", re.IGNORECASE)


class Answer(msgspec.Struct, frozen=True):
    """One route's answer to a request, as far as a decision looks at it."""

    content: str
    output_tokens: int = 0
    logprobs: tuple[float, ...] = ()  # of its tokens, where the provider tells them
    finish_reason: str = "stop"


def answer_of(
    content: str, output_tokens: int, logprobs: Mapping[str, Any] | None, finish_reason: str | None
) -> Answer:
    """Make it of what a chat completion says; `logprobs` as its choice has them."""
    tokens = (logprobs or {}).get("content")
    said = [token.get("logprob") for token in tokens if isinstance(token, Mapping)] if isinstance(tokens, list) else []
    values = tuple(max(_LEAST, min(0.0, float(each))) for each in said if isinstance(each, int | float))
    return Answer(content, output_tokens, values, finish_reason or "stop")


def of_prompt(prompt: str) -> list[float]:
    """Describe a request: lengths, numbers, symbols, the shape of its lines."""
    text = prompt[:_LONGEST]
    lines = text.split("\n")
    last = [len(line) for line in lines[-5:-1]] or [len(lines[-1])]
    numbers = _numbers(text)
    size = max(1, len(text))
    return [
        math.log1p(len(prompt)),
        math.log(len(lines)),
        math.log1p(len(lines[0])),
        math.log1p(sum(last) / len(last)),
        math.log1p(max(last) - min(last)),
        sum(map(str.isdigit, text)) / size,
        sum(map(str.isupper, text)) / size,
        (len(text) - len(text.encode("ascii", "ignore"))) / size,
        math.log1p(len(numbers)),
        math.log1p(max(map(_float, numbers), default=0.0)),
        float(any("." in number for number in numbers)),
        math.log1p(text.count("%")),
        math.log1p(text.count("/")),
        math.log1p(text.count("$") + text.count("^") + text.count("\\")),
        math.log1p(text.count(",")),
        math.log1p(text.count(". ")),
        float("_" in text),
        float("?" in text),
        float(_NEGATION.search(text) is not None),
    ]


def of_answer(prompt: str, answer: Answer) -> list[float]:
    """Describe an answer beside its request: its arithmetic, its numbers, its doubts, the model's own confidence."""
    text = answer.content[-_LONGEST:]
    numbers, asked = _numbers(text), set(_numbers(prompt[:_LONGEST]))
    known = asked.intersection(numbers)
    last = numbers[-1] if numbers else ""
    checked = check_arithmetic(text)
    logprobs = answer.logprobs
    return [
        math.log1p(len(answer.content)),
        math.log1p(answer.output_tokens),
        math.log1p(text.count("\n")),
        math.log1p(checked.equations),
        float(checked.equations == 0),
        float(checked.wrong > 0),
        math.log1p(checked.wrong),
        math.log1p(len(numbers)),
        len(known) / max(1, len(asked)),
        math.log1p(len(asked) - len(known)),
        math.log1p(len(set(numbers) - asked)),
        float(last in asked),
        float("." in last),
        float(len(last)),
        math.log1p(_float(last)),
        math.log1p(text.count("=")),
        math.log1p(text.count("/")),
        math.log1p(text.count("%")),
        math.log1p(text.count("$") + text.count("^") + text.count("\\")),
        float("= -" in text or "=-" in text),
        math.log1p(text.lower().count("let ")),
        math.log1p(text.lower().count("assum")),
        math.log1p(len(_HEDGE.findall(text))),
        float(_REFUSAL.search(text) is not None),
        float(not text.strip()),
        float(answer.finish_reason != "stop"),
        sum(logprobs) / len(logprobs) if logprobs else 0.0,
        max(-20.0, min(logprobs)) if logprobs else 0.0,
    ]


def of_agreement(same: Sequence[bool]) -> list[float]:
    """Describe which pairs of answers are the same."""
    return [*map(float, same)]


def _numbers(text: str) -> list[str]:
    return _NUMBER.findall(text.replace(",", ""))


def _float(text: str) -> float:
    return min(1e15, float(text)) if text else 0.0  # a thousand digits are infinite
