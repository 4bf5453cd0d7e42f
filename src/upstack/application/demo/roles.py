"""Who answers and who is compared with: chosen from prices alone, never from losses, which are what is measured."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping

import msgspec

from upstack.core.errors import ConfigError
from upstack.core.types import Picodollars, Price

_INPUT_SHARE = 3  # input tokens for each output token in the blend that prices are compared by


class Roles(msgspec.Struct, frozen=True):
    """Two routes of the traffic, as "provider/model"."""

    reference: str  # what always paying for the dearest would ask
    candidate: str  # what the demo asks first


def choose_roles(prices: Mapping[str, Price | None], reference: str | None, candidate: str | None) -> Roles:
    """Take the dearest priced route as the reference and the cheapest as the candidate, unless they are named.

    `prices` holds every route of the traffic, None where its price is unknown. Prices are compared by what three
    input tokens and one output token cost; equal ones by name. Raises ConfigError where there are not two to choose.
    """
    for flag, name in (("--reference", reference), ("--candidate", candidate)):
        if name is not None and name not in prices:
            raise ConfigError(f'{flag} "{name}": the traffic holds no answers of it{_near(name, prices)}')
    if len(prices) < 2:
        raise ConfigError(f"the traffic holds answers of one route only, {', '.join(prices)}; two can be compared")
    order = sorted(
        (blend(price), name)
        for name, price in prices.items()
        if price is not None and name not in {reference, candidate}
    )
    needed = (reference is None) + (candidate is None)
    if len(order) < needed:
        flags = " and ".join(flag for flag, name in _flags(reference, candidate) if name is None)
        raise ConfigError(
            f"which route is cheapest is unknown, as {_priced(prices)} known price; name {flags} (there are "
            f"{_listed(prices)}), or give --prices"
        )
    chosen = Roles(reference or order[-1][1], candidate or order[0][1])
    if chosen.reference == chosen.candidate:
        raise ConfigError(f"{chosen.reference} is both reference and candidate; name another for one of them")
    return chosen


def blend(price: Price) -> Picodollars:
    """What three input tokens and one output token cost, in a short request."""
    rates = price.tiers[0][1]
    return _INPUT_SHARE * rates.input + rates.output


def _flags(reference: str | None, candidate: str | None) -> tuple[tuple[str, str | None], ...]:
    return (("--reference", reference), ("--candidate", candidate))


def _priced(prices: Mapping[str, Price | None]) -> str:
    known = [name for name, price in prices.items() if price is not None]
    return f"only {known[0]} has a" if len(known) == 1 else f"{len(known) or 'none'} of {len(prices)} routes has a"


def _near(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; it has {_listed(known)}"


def _listed(names: Iterable[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")
