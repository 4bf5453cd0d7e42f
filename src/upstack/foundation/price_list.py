"""The words of prices.json, and how a model is found in it by its name, as genai-prices finds it. Free of I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, time
from decimal import Decimal

import msgspec

# USD, or where it grows with the input tokens: each price with the count it lies above, from 0 up.
Usd = Decimal | tuple[tuple[int, Decimal], ...]
# A compact date, as some gateways write it behind a model's name.
_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class Clause(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """A test of a name in lower case. One field is set; its text is in lower case, unless it is a pattern."""

    equals: str | None = None
    starts_with: str | None = None
    ends_with: str | None = None
    contains: str | None = None
    regex: str | None = None
    any_of: tuple[Clause, ...] | None = msgspec.field(default=None, name="or")
    all_of: tuple[Clause, ...] | None = msgspec.field(default=None, name="and")


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What a model costs, from a date on or within some hours of each day."""

    usd: dict[str, Usd]  # under the list's own keys, which name the unit
    start_date: date | None = None  # from its midnight on, UTC
    start_time: time | None = None  # UTC; both or neither
    end_time: time | None = None  # exclusive; before the start: on the next day


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A model of a list."""

    id: str
    match: Clause
    prices: tuple[Entry, ...]  # at least one; of those in force the last counts, else the first


class PriceLists(msgspec.Struct, frozen=True):
    """The whole file."""

    release: str  # of genai-prices
    lists: dict[str, msgspec.Raw]  # by provider, each of many `Listed`: decoded when the first is asked for


def find(models: Sequence[Listed], name: str) -> Listed | None:
    """The first whose clause holds for `name`, in whatever case; if none, a "-20251211" in it is read as a date."""
    name = name.lower()
    for spelling in dict.fromkeys((name, _DATE.sub(_dashed, name))):
        for model in models:
            if matches(model.match, spelling):
                return model
    return None


def matches(clause: Clause, name: str) -> bool:
    """Whether the clause holds for `name`, which is in lower case."""
    if clause.equals is not None:
        return name == clause.equals
    if clause.starts_with is not None:
        return name.startswith(clause.starts_with)
    if clause.ends_with is not None:
        return name.endswith(clause.ends_with)
    if clause.contains is not None:
        return clause.contains in name
    if clause.regex is not None:
        return re.search(clause.regex, name) is not None
    if clause.any_of is not None:
        return any(matches(each, name) for each in clause.any_of)
    return clause.all_of is not None and all(matches(each, name) for each in clause.all_of)


def _dashed(found: re.Match[str]) -> str:
    try:
        return f"-{date(*map(int, found.groups()))}"
    except ValueError:  # no such day
        return found[0]
