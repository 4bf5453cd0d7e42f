"""Checks the arithmetic that an answer shows: "3 x $12.50 = $37.50" can be worked out again. Pure."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d{1,15})(?:\.\d{1,12})?|\.\d{1,12}"
_TOKEN = re.compile(rf"\s*(?:({_NUMBER})|([-+*/()]))")
_EQUATION = re.compile(rf"([-+*/().,\d\s]{{3,200}})=\s*(-?\s*(?:{_NUMBER}))(?![\d,]*\d)")
_SIGNS = str.maketrans(
    "\u00d7\u00b7\u22c5\u2217\u00f7\u2212\u2013$\u20ac\u00a3", "****/--   "
)  # x . . * / - - and money
_TIMES = re.compile(r"(?<=[\d)])\s*(?:x|X|\\times|\\cdot)\s*(?=[\d($.])")
_PERCENT = re.compile(rf"({_NUMBER})\s*%")
_BULLET = re.compile(r"^\s*\d{1,3}[.)]\s+")  # of a list
_LONGEST = 20_000  # characters of an answer that are looked at
_DEEPEST = 20


Exact = int | Fraction


class Checked(NamedTuple):
    """How many equations could be worked out again, and how many of them were wrong."""

    equations: int
    wrong: int


def check_arithmetic(answer: str) -> Checked:
    """Work out each "... = number" whose left side is plain arithmetic, as exact as its right side is written."""
    text = _TIMES.sub("*", answer[:_LONGEST].translate(_SIGNS))
    text = _PERCENT.sub(r"(\1/100)", text)
    equations = wrong = 0
    for found in _EQUATION.finditer(text):
        line = _BULLET.sub("", found[1].rpartition("\n")[2])
        value = evaluate(line.strip(" .,"))
        if value is None:
            continue
        equations += 1
        claimed = found[2].replace(" ", "")
        decimals = len(claimed.partition(".")[2])
        off = Fraction(value) - _number(claimed)
        wrong += abs(off) * 2 * 10**decimals > 1
    return Checked(equations, wrong)


def evaluate(text: str) -> Exact | None:
    """The value of plain arithmetic in at least two numbers; None for anything else, and for a division by zero."""
    tokens: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            return None
        tokens.append(found[1] or found[2])
        at = found.end()
    if sum(token[-1].isdigit() for token in tokens) < 2:
        return None
    tokens.reverse()
    try:
        value = _sum(tokens, 0)
    except (ArithmeticError, IndexError, ValueError):
        return None
    return None if tokens else value


def _sum(tokens: list[str], depth: int) -> Exact:
    value = _product(tokens, depth)
    while tokens and tokens[-1] in "+-":
        sign = 1 if tokens.pop() == "+" else -1
        value += sign * _product(tokens, depth)
    return value


def _product(tokens: list[str], depth: int) -> Exact:
    value = _factor(tokens, depth)
    while tokens and tokens[-1] in "*/":
        value = value * _factor(tokens, depth) if tokens.pop() == "*" else Fraction(value) / _factor(tokens, depth)
    return value


def _factor(tokens: list[str], depth: int) -> Exact:
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    part = tokens.pop()
    if part == "-":
        return -_factor(tokens, depth + 1)
    if part == "(":
        value = _sum(tokens, depth + 1)
        if tokens.pop() != ")":
            raise ValueError("a bracket is not closed")
        return value
    return _number(part)


def _number(text: str) -> Exact:
    """Read a number; a whole one stays one, as fractions take long."""
    whole, _, decimals = text.replace(",", "").partition(".")
    return Fraction(int(whole + decimals), 10 ** len(decimals)) if decimals else int(whole)
