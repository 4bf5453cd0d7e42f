"""`upstack routes`: what a configuration and an environment make, and how it has been doing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from upstack.application.client import client, unreachable
from upstack.application.gateway.state import build_state
from upstack.cli.options import gateway_url, read, tidy
from upstack.cli.output import Name, new_table, print_json, printable, say, show, usd_per_million
from upstack.core.types import Price, Provider, Route, State
from upstack.inference.router import targets_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_NO_PROVIDER = (
    "No provider was found. Set a key, OPENAI_API_KEY for one, or write [providers] in upstack.toml; "
    "`upstack doctor` says where it looked."
)


def list_routes(config: Path | None, url: str | None, *, as_json: bool) -> None:
    """Print routes and providers, health where a gateway runs; with `url` what the gateway there tells of its own."""
    if url is not None:
        _list_running(tidy(url), as_json=as_json)
        return
    state = build_state(read(config), os.environ, 1)
    base = gateway_url(None, config)
    health = _get(base, "/admin/health")  # of every target
    if as_json:
        rows = [_route(route, health) for route in state.routes.values()]
        providers = [_provider(provider) for provider in state.providers.values()]
        print_json({"gateway": None if health is None else base, "routes": rows, "providers": providers})
        return
    if state.routes:
        show(_routes_table(state, health))
    if not state.providers:
        say(_NO_PROVIDER)
        return
    show(_providers_table(state))
    some = next(iter(sorted(state.providers)))
    say(f"Any PROVIDER/MODEL of these works without a row of its own, {some}/MODEL for one.")
    if health is None:
        say(f"No gateway runs at {base}, so there is no health to show.", style="dim")


def _list_running(base: str, *, as_json: bool) -> None:
    """Print what a running gateway has; UpstackError where none answers."""
    health, listed = _get(base, "/admin/health"), _get(base, "/v1/models")
    if health is None or listed is None:
        raise unreachable(base)
    models = {str(row["id"]): str(row["owned_by"]) for row in listed["data"]}
    tasks = [name for name in models if name.startswith("task/")]
    routes = {name: owner for name, owner in models.items() if name not in tasks}
    records = {
        name: {key: health[key] for key in health if key.rpartition("#")[0] == name or key == name} for name in routes
    }
    if as_json:
        rows = [{"name": name, "provider": owner, "health": records[name]} for name, owner in routes.items()]
        print_json({"gateway": base, "routes": rows, "tasks": tasks})
        return
    lines = new_table("Route", "Provider", "Health", whole=("Provider", "Health"))
    for name, owner in routes.items():
        lines.add_row(Name(name), printable(owner), _in_words(list(records[name].values())))
    if routes:
        show(lines)
    else:
        say("No route has a row of its own there, and none was asked yet.")
    say(f"Tasks: {', '.join(tasks) or 'none'}.")
    say(f"As the gateway at {base} tells it; prices and providers are known where its configuration lies.", style="dim")


def _routes_table(state: State, health: dict[str, Any] | None) -> Table:
    """Narrow enough for 80 columns: what would be the same for all is left out, and keys are the providers'."""
    placed = any(route.residency for route in state.routes.values())
    columns = ["$/M in, out", *(["Residency"] if placed else []), "Version", *([] if health is None else ["Health"])]
    lines = new_table("Route", *columns, whole=columns)
    for route in state.routes.values():
        asks = f"{route.provider.name}/{route.model}"
        row: list[RenderableType] = [Name(route.name) if route.name == asks else Name(route.name, f"  {asks}")]
        row += [_price_in_words(route.price), *([route.residency or "-"] if placed else []), route.version]
        lines.add_row(*row, *([] if health is None else [_in_words(list(_of_route(route, health).values()))]))
    return lines


def _price_in_words(price: Price | None) -> str:
    """USD per million tokens, input and output; a `+` where long requests cost more."""
    if price is None:
        return "unknown"
    rates = price.tiers[0][1]
    more = "+" if len(price.tiers) > 1 else ""
    return f"{usd_per_million(rates.input)}{more}, {usd_per_million(rates.output)}{more}"


def _providers_table(state: State) -> Table:
    lines = new_table("Provider", "Where", "Keys", right=("Keys",))
    for provider in sorted(state.providers.values(), key=lambda each: each.name):
        lines.add_row(provider.name, provider.base_url, str(_credentials(provider) or "none needed"))
    return lines


def _credentials(provider: Provider) -> int:
    return sum(1 for headers in provider.headers if headers)


def _get(base: str, path: str) -> dict[str, Any] | None:
    """What a running gateway says at `path`; None where none runs."""
    try:
        with client(base) as http:
            answer = http.get(f"{base}{path}")
        found = answer.json() if answer.status_code == 200 else None
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _of_route(route: Route, health: dict[str, Any]) -> dict[str, Any]:
    return {target.key: health[target.key] for target in targets_of(route) if isinstance(health.get(target.key), dict)}


def _in_words(found: list[dict[str, Any]]) -> str:
    if not found:
        return "not asked"
    answered, failed = (sum(record[name] for record in found) for name in ("answered", "failed"))
    resting = [record["rests_s"] for record in found if record["rests_s"] > 0]
    said = [f"{answered} answered", f"{failed} failed"]
    if len(resting) == len(found):
        said.append(f"rests {min(resting):.0f} s")
    elif resting:
        said.append(f"{len(resting)} of {len(found)} keys rest")
    return "\n".join(said)


def _route(route: Route, health: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": route.name,
        "provider": route.provider.name,
        "model": route.model,
        "version": route.version,
        "residency": route.residency,
        "credentials": _credentials(route.provider),
        "price": None if route.price is None else _price(route.price),
        "health": None if health is None else _of_route(route, health),
    }


def _price(price: Price) -> dict[str, Any]:
    tiers = [
        {
            "above_input_tokens": above,
            "input_usd_per_million": usd_per_million(rates.input),
            "output_usd_per_million": usd_per_million(rates.output),
            "cached_input_usd_per_million": None if rates.cached_input is None else usd_per_million(rates.cached_input),
        }
        for above, rates in price.tiers
    ]
    return {"version": price.version, "tiers": tiers}


def _provider(provider: Provider) -> dict[str, Any]:
    return {"name": provider.name, "base_url": provider.base_url, "credentials": _credentials(provider)}
