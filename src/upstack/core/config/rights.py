"""The table `[rights]`: what this deployment is, and texts of one's own that say what may be done with rows."""

from __future__ import annotations

from datetime import date
from typing import Literal

import msgspec

Value = Literal["yes", "no", "unknown"]


class Unless(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What else is so where all of these conditions are met."""

    conditions: tuple[str, ...]  # classifier, not_distributed, users<N, revenue<N, region!=X
    train: Value | None = None
    distil: Value | None = None
    export: Value | None = None
    share: Value | None = None
    obligations: tuple[str, ...] = ()


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A provider's terms, or a licence."""

    train: Value = "unknown"  # may what is under it be learned from at all
    distil: Value = "unknown"  # may a model's answers teach another model
    export: Value = "unknown"  # may rows leave as a file
    share: Value = "unknown"  # may they be given to others
    source: str = ""
    providers: tuple[str, ...] = ()  # whose terms these are
    names: tuple[str, ...] = ()  # that a licence goes by
    sha256: tuple[str, ...] = ()  # of texts that were read, white space folded
    since: date | None = None
    until: date | None = None  # the first day on which it holds no more
    obligations: tuple[str, ...] = ()
    unless: tuple[Unless, ...] = ()  # `conditions`, and what else is so where all of them are met


class SaidConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is so of a task's requests, where a row does not say it itself."""

    licence: str = ""  # of what callers send
    consent: str = ""  # "yes" or "no"
    purpose: str = ""  # what for it was given
    residency: str = ""  # where it has to stay


class RightsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What this deployment is, by which conditions are judged; and texts that stand before those that ship."""

    users: int = 0  # a month
    revenue_usd: float = 0.0  # a year
    region: str = ""  # where it is, such as "eu"
    distributed: bool = False  # students leave the house, or answer for others than it
    purposes: tuple[str, ...] = ()  # what it processes for; empty: rows that name a purpose are for another one
    own: Value = "yes"  # may what its own callers ask, without a word on rights, be learned from
    weights: dict[str, str] = {}  # by provider of your own: the licence of the model that it runs
    tasks: dict[str, SaidConfig] = {}  # what is so of their requests
    terms: dict[str, Text] = {}  # of providers, by a name of your choice
    licences: dict[str, Text] = {}  # of rows and weights
