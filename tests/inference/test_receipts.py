"""From attempts to a receipt."""

from __future__ import annotations

import pytest

from tests.inference.test_cascade import make_plan
from tests.inference.test_router import ask
from upstack.core.errors import Failure
from upstack.core.types import Attempt, ReceiptState, Usage
from upstack.inference.receipts import Ending, finish, surely_free, total_cost

WHOLE = {Failure.RATE_LIMITED, Failure.STATUS, Failure.AUTH, Failure.NOT_FOUND, Failure.CALLER, Failure.UNFIT}
UNREAD = {Failure.REFUSED, Failure.CONNECT_TIMEOUT, Failure.POOL_FULL, Failure.STALE, Failure.RESIDENCY}


@pytest.mark.parametrize("failure", list(Failure))
def test_only_what_cannot_be_billed_is_free(failure: Failure) -> None:
    """A request that was not read, or was refused by the provider itself; whatever broke in between is unknown."""
    assert surely_free(failure, None if failure in UNREAD else 429) == (failure in WHOLE | UNREAD)


@pytest.mark.parametrize(("status", "free"), [(500, True), (503, True), (502, False), (504, False), (524, False)])
def test_a_proxys_word_is_not_the_providers(status: int, free: bool) -> None:
    """A proxy that gave up says nothing of what the provider behind it has made by then."""
    assert surely_free(Failure.STATUS, status) is free


def attempt(failure: str | None, cost: int | None = 0) -> Attempt:
    """An attempt that ended so."""
    usage = Usage(1, 1)
    return Attempt("a/x", "a", "x", "v1", 0, None, failure, 0.0, None, 0.1, usage, None, cost)


@pytest.mark.parametrize(
    ("state", "failure", "route"),
    [
        ("answered", None, "a/x"),
        ("truncated", "connection_reset", "a/x"),
        ("cancelled", "cancelled", "a/x"),
        ("cancelled", "connection_reset", None),  # between two attempts
        ("failed", "connection_reset", None),
    ],
)
def test_the_route_is_the_one_that_was_answering(state: ReceiptState, failure: str | None, route: str | None) -> None:
    """A receipt names a route only where one had begun, or was about, to answer."""
    ending = Ending(state, 200, 1.0)
    receipt = finish("id", 0.0, ask("a/x"), make_plan("a/x"), [attempt(failure)], ending)
    assert receipt.route == route
    assert (receipt.usage is None) == (route is None)


def test_one_unknown_cost_makes_the_whole_unknown() -> None:
    """A sum with an unknown part is unknown, never less."""
    ending = Ending("answered", 200, 1.0)
    plan = make_plan("a/x")
    assert finish("id", 0.0, ask("a/x"), plan, [attempt("x", 3), attempt(None, 4)], ending).cost_picodollars == 7
    assert finish("id", 0.0, ask("a/x"), plan, [attempt("x", None), attempt(None)], ending).cost_picodollars is None


def test_a_sum_that_no_ledger_holds_is_unknown() -> None:
    """Each attempt may fit into 64 bits and all of them together not."""
    most = 2**63 - 1
    assert total_cost([attempt(None, most)]) == most
    assert total_cost([attempt("bad_status", most), attempt(None, 1)]) is None
