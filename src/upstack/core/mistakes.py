"""What msgspec found wrong with data, in plain words: where first, then what."""

from __future__ import annotations

import re

from upstack.core.errors import RequestError

_TYPES = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<got>[^`]*)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]*)`")
_AT = re.compile(r" - at `\$(?P<path>[^`]*)`$")


def split(message: str) -> tuple[str, str]:
    """Take a ValidationError's text apart: the path ("" for the whole, `[...]` for some member) and what is said."""
    found = _AT.search(message)
    return ("", message) if found is None else (found["path"].removeprefix("."), message[: found.start()])


def in_words(path: str, said: str) -> str:
    """Put it as we do: "server.port: expected int, got str"."""
    missing = _MISSING.fullmatch(said)
    if missing is not None:
        return f"{path}.{missing['name']}: missing".removeprefix(".")
    types = _TYPES.fullmatch(said)
    if types is not None:
        said = f"expected {types['wanted'].replace(' | ', ' or ')}, got {types['got']}"
    elif not path:
        return said
    return f"{path}: {said[:1].lower()}{said[1:]}".removeprefix(": ")


def unreadable(error: Exception) -> RequestError:
    """Say why a request's body is no JSON: msgspec met `error` in it, or its decoding to text did."""
    if isinstance(error, UnicodeDecodeError):
        return RequestError(f"The body is not UTF-8 (byte {error.start})", code="invalid_utf8")
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return RequestError(f"The body is not valid JSON: {reason}", code="invalid_json")
