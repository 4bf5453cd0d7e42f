"""Normalisers: what makes two texts that mean the same the same text. Each leaves alone what it does not understand.

Answers may be long and hostile: what takes more than linear time is done to a part of them alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

Normaliser = Callable[[str], str]

_TAIL = 4000  # characters at the end, in which the last number or letter is looked for
_LONGEST = 10_000  # characters of a formula; what is nested is undone level by level

_NUMBER = re.compile(
    r"[-+\u2212]?(?:\d{1,3}(?:[,\u202f\u00a0]\d{3})+(?![\d,])|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+\u2212]?\.\d+"
)
_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|textbf|mbox|operatorname)\s*\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|(\w))\s*(?:\{([^{}]*)\}|(\w))")
_ROOT = re.compile(r"\\sqrt\s*(\w)")
_NOTHING = re.compile(
    r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,;:! ]|\\\(|\\\)|\\\[|\\\]|\$|\^\{?\\circ\}?|\\degree"
)
_SAID = re.compile(r"(?:answer|choice|option)(?:\s+is)?\s*:?\s*[*\"'(\[]*([A-Z])(?![A-Za-z])", re.IGNORECASE)
_MARKED = re.compile(r"(?:\(([A-Z])\)|\*\*\(?([A-Z])\)?[.:)]?\*\*|^[ \t]*([A-Z])[.:)](?=\s|$))", re.MULTILINE)
_MEMBER = re.compile(r'"(?:final_)?answer"\s*:\s*("(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^\s,}]+)')
_FINAL = re.compile(r"(?:####|answer(?:\s+is)?\s*:|answer\s+is)\s*([^\n]+)", re.IGNORECASE)
_ALONE = re.compile(r"[\s\"'*(\[]*([A-Za-z])[\s\"'*)\].:]*")


def case(text: str) -> str:
    """Ignore upper and lower case."""
    return text.casefold()


def space(text: str) -> str:
    """Fold white space, and drop it at the ends."""
    return " ".join(text.split())


def number(text: str) -> str:
    """Take the last number, in its shortest form: "$1,250.50 in all" is 1250.5, "18.0" is 18."""
    found = _NUMBER.findall(text[-_TAIL:])
    if not found:
        return text
    try:
        value = Decimal(re.sub(r"[,\u202f\u00a0]", "", found[-1]).replace("\u2212", "-"))
    except InvalidOperation:
        return text
    return format(value.normalize(), "f") if value else "0"


def latex(text: str) -> str:
    r"""Take what is in the last \\boxed, else all; drop what only sets type. "\\dfrac{1}{2}" is 1/2."""
    text = _boxed(text)
    if len(text) > _LONGEST:
        return text
    before = None
    while before != text:  # what is nested goes from the inside out
        before = text
        text = _COMMAND.sub(r"\1", text)
        text = _FRACTION.sub(_quotient, text)
    text = _ROOT.sub(r"\\sqrt{\1}", _NOTHING.sub("", text))
    text = re.sub(r"\\(?:cdot|times)(?![a-zA-Z])", "*", text).replace("\\%", "%")
    return "".join(text.split()).rstrip(".")


def choice(text: str) -> str:
    """Take the letter of a multiple choice: the last that is said to be the answer, else the last that is marked."""
    alone = _ALONE.fullmatch(text)
    if alone is not None:
        return alone[1].upper()
    tail = text[-_TAIL:]
    said = _SAID.findall(tail)
    if said:
        return str(said[-1]).upper()
    marked = [next(filter(None, letters)) for letters in _MARKED.findall(tail)]
    return marked[-1] if marked else text


def _boxed(text: str) -> str:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return text
    start = text.index("{", start) + 1
    depth = 1
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return text[start:at]
    return text  # never closed: the answer was cut off


def _quotient(found: re.Match[str]) -> str:
    parts = (found[1] or found[2] or "", found[3] or found[4] or "")
    return "/".join(part if re.fullmatch(r"-?\w*", part) else f"({part})" for part in parts)


def answer(text: str) -> str:
    """Take what is said to be the answer: the member "answer" of JSON, what follows "answer is" or ####, else all.

    A number alone is put into its shortest form, without a currency or a percent sign.
    """
    tail = text[-_TAIL:]
    member = _MEMBER.findall(tail)
    said = [] if member else _FINAL.findall(tail)
    found = member[-1] if member else said[-1] if said else text
    found = found.strip().rstrip(".").strip('*"` ') if member or said else found
    bare = found.strip().strip("$%").replace("\\$", "")
    return number(bare) if _NUMBER.fullmatch(bare) else found


NORMALISERS: dict[str, Normaliser] = {
    "case": case,
    "space": space,
    "number": number,
    "latex": latex,
    "choice": choice,
    "answer": answer,
}
