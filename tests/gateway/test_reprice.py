"""Prices that change by themselves reach the state in time, whenever its routes came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.gateway.serving import make_gateway, no_limits
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.state import build_state, reprice, reprice_at
from upstack.core.config import Config, ProviderConfig, RouteConfig, TaskConfig
from upstack.core.store.client import LedgerClient
from upstack.core.types import Price, Provider, State
from upstack.foundation.prices import price_for

PROVIDERS = {"deepseek": ProviderConfig(api_key="env:KEY"), "mine": ProviderConfig(base_url="http://x/v1", auth="none")}
ENVIRON = {"KEY": "secret"}
CHEAP = Config(providers=PROVIDERS, routes={"cheap": RouteConfig(model="deepseek/deepseek-chat")})
FIXED = Config(providers=PROVIDERS)
EDGE = datetime(2026, 11, 20, 16, 30, tzinfo=UTC)  # deepseek-chat is cheaper from here on
BEFORE, AFTER = EDGE - timedelta(seconds=30), EDGE + timedelta(seconds=30)


def listed(now: datetime) -> Price | None:
    """What the model costs then."""
    return price_for(Provider("deepseek", "openai", "https://x"), "deepseek-chat", {}, (), now)


def at(config: Config, now: datetime) -> State:
    """The state of a configuration with the prices of that moment."""
    return reprice(build_state(config, ENVIRON, 1), config, now)


def learn(gateway: Gateway) -> str:
    """A route asked for by its model, for the first time."""
    name = "deepseek/deepseek-chat"
    gateway.state_for(name)
    gateway.state = reprice(gateway.state, gateway.config, BEFORE)  # as if it had been learned then
    return name


def swap(gateway: Gateway) -> str:
    """A new configuration with a route."""
    gateway.swap(CHEAP, at(CHEAP, BEFORE), no_limits(CHEAP))
    return "cheap"


@pytest.mark.parametrize("change", [learn, swap])
def test_a_route_that_came_between_two_looks_has_its_new_price_at_the_second(
    tmp_path: Path, change: Callable[[Gateway], str]
) -> None:
    """The edge falls after the route came and before the next look, which therefore has to find it."""

    async def run() -> None:
        ledger = LedgerClient(tmp_path / "upstack.db")
        state = at(FIXED, BEFORE)
        gateway = make_gateway(FIXED, state, ledger)
        gateway.reprice(BEFORE)
        name = change(gateway)
        assert gateway.state.routes[name].price == listed(BEFORE) != listed(AFTER)
        gateway.reprice(AFTER)
        assert gateway.state.routes[name].price == listed(AFTER)
        (target,) = gateway.state.plans[name].targets
        assert target.route.price == listed(AFTER)

    asyncio.run(run())


def test_prices_without_an_edge_leave_the_state_as_it_is(tmp_path: Path) -> None:
    """Between two edges a look changes nothing."""

    async def run() -> None:
        ledger = LedgerClient(tmp_path / "upstack.db")
        state = at(CHEAP, AFTER)
        gateway = make_gateway(CHEAP, state, ledger)
        gateway.reprice(AFTER)
        seen = gateway.state
        gateway.reprice(AFTER + timedelta(seconds=60))
        assert gateway.state is seen

    asyncio.run(run())


def test_the_next_edge_is_that_of_the_first_route_to_change() -> None:
    """Routes without a list, or with a fixed price, have none."""
    assert reprice_at(at(CHEAP, BEFORE), BEFORE) == EDGE
    fixed = Config(providers=PROVIDERS, tasks={"t": TaskConfig(candidates=("mine/m",))})
    assert reprice_at(at(fixed, BEFORE), BEFORE) is None
