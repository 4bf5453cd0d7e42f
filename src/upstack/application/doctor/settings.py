"""What can be said of a configuration and an environment without a connection: names of keys, never their values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from upstack.application.doctor.finding import Finding
from upstack.application.gateway.state import build_state
from upstack.core.config import Config, ProviderConfig, load_config
from upstack.core.errors import ConfigError
from upstack.core.types import Provider, State
from upstack.foundation.catalog import Row, find_row, providers_from, rows, warnings, why_missing

_REFERENCE = re.compile(r"env:[A-Za-z_]\w*|file:.+")
_POINTERS = frozenset({"OPENAI_BASE_URL", "OPENAI_API_BASE"})  # where clients are pointed: `bypasses` judges them


class Settings(msgspec.Struct, frozen=True):
    """What the configuration and the environment come to. `state` is None where a gateway would not start."""

    path: Path | None  # of the configuration; None: there is none
    config: Config
    providers: dict[str, Provider]
    sources: dict[str, tuple[str, ...]]  # by provider: what each of its keys is called
    state: State | None


def read_settings(path: Path | None, environ: Mapping[str, str]) -> tuple[Settings, list[Finding]]:
    """Read everything that can be read; what is broken becomes a finding, and the rest is still looked at."""
    findings: list[Finding] = []
    try:
        config = load_config(path, environ)
    except ConfigError as error:
        findings.append(Finding("problem", "config", error.message, "mend it; what follows goes by the defaults"))
        config = Config()
    else:
        findings.append(_described(path, config))
    broken = _broken(config, environ)
    for name, message in broken.items():
        findings.append(Finding("problem", "provider", message, _remedy(name, config.providers[name])))
    usable = replace(config, providers={name: row for name, row in config.providers.items() if name not in broken})
    providers = providers_from(usable, environ)
    sources = {name: _sources(name, config.providers.get(name), environ) for name in providers}
    state = None
    try:
        state = build_state(config, environ, 1)
    except ConfigError as error:
        if not broken:
            findings.append(Finding("problem", "config", error.message, "mend it; the gateway does not start so"))
    return Settings(path, usable, providers, sources, state), findings


def found_providers(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Which providers there are and where their keys came from; which are nearly there; which cannot be called yet."""
    for name, provider in sorted(settings.providers.items()):
        keys = ", ".join(settings.sources[name])
        where = "configured" if name in settings.config.providers else "from the environment"
        yield Finding("ok", "provider", f"{name}, {where}, {f'key {keys}' if keys else 'no key'}: {provider.base_url}")
    if not settings.providers:
        remedy = "set a key, OPENAI_API_KEY for one, or write a table [providers.NAME]"
        text = f"none was found, so nothing can be asked; {_looked_at(settings.path)}"
        yield Finding("problem", "provider", text, remedy)
    for row in rows():
        if row.name not in settings.providers and row.name not in settings.config.providers:
            yield from _nearly(row, environ)
    # A variable that points clients at this gateway is judged elsewhere, and where it points.
    others = {name: value for name, value in environ.items() if name not in _POINTERS}
    for warning in warnings(settings.config, others):
        yield Finding("note", "provider", warning)


def unknown_prices(settings: Settings) -> Iterator[Finding]:
    """Routes whose cost would be unknown."""
    routes = {} if settings.state is None else settings.state.routes
    for route in routes.values():
        asks = f"{route.provider.name}/{route.model}"
        if route.price is None:
            remedy = f'write [prices."{asks}"] with input and output, USD per million tokens'
            yield Finding("note", "price", f"{route.name}: unknown, so receipts will not say its cost", remedy)
    if routes and all(route.price is not None for route in routes.values()):
        yield Finding("ok", "price", f"known for all {len(routes)} configured routes")
    routed = {route.provider.name for route in routes.values()}
    unlisted = sorted(name for name, provider in settings.providers.items() if provider.catalog == "")
    if unlisted := [name for name in unlisted if name not in routed]:
        text = f"the price list knows no model of {', '.join(unlisted)}"
        yield Finding("note", "price", text, 'write [prices."PROVIDER/MODEL"] for the models you ask')


def _described(path: Path | None, config: Config) -> Finding:
    if path is None:
        return Finding("ok", "config", f"no upstack.toml in {Path.cwd()}: defaults and the environment")
    tables = (("provider", config.providers), ("route", config.routes), ("task", config.tasks))
    counts = ", ".join(f"{len(table)} {name}{'' if len(table) == 1 else 's'}" for name, table in tables)
    return Finding("ok", "config", f"{path} is valid: {counts}")


def _broken(config: Config, environ: Mapping[str, str]) -> dict[str, str]:
    """The configured providers that cannot be used: name -> why. Each by itself, so that all are found."""
    found = {}
    for name, table in config.providers.items():
        try:
            providers_from(Config(providers={name: table}), environ)
        except ConfigError as error:
            found[name] = error.message
    return found


def _remedy(name: str, table: ProviderConfig) -> str:
    """What mends a table that cannot be used: a key in place of its reference has a remedy of its own."""
    keys = table.api_keys or ((table.api_key,) if table.api_key else ())
    if all(_REFERENCE.fullmatch(key) for key in keys):
        return f"set or mend it, or take [providers.{name}] out"
    row = find_row(name)
    variable = row.key_env[0] if row is not None and row.key_env else re.sub(r"\W", "_", f"{name}_API_KEY").upper()
    return f'put the key into the environment and write api_key = "env:{variable}"'


def _looked_at(path: Path | None) -> str:
    """Where providers were looked for: every variable of the catalogue, and the file."""
    able = [row for row in rows() if row.unsupported is None]
    keys = dict.fromkeys(name for row in able if not row.local for name in row.key_env)
    urls = dict.fromkeys(name for row in able if row.local or row.base_url is None for name in row.url_env)
    file = path or f"{Path.cwd() / 'upstack.toml'}, which is not there"
    return (
        f"looked for a key in {', '.join(keys)}; for the URL of a server of yours in {', '.join(urls)}; and for "
        f"[providers.NAME] in {file}"
    )


def _sources(name: str, table: ProviderConfig | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What its keys are called: the references of the configuration, else the variable of the catalogue."""
    if table is not None and (table.api_keys or table.api_key):
        return table.api_keys or (table.api_key or "",)
    row = find_row(name)
    variable = None if row is None else _first_set(row.key_env, environ)
    return () if variable is None else (variable,)


def _nearly(row: Row, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Say what is missing where part of it is set."""
    if _first_set((*row.key_env, *row.url_env), environ) is not None:
        yield Finding("note", "provider", why_missing(row.name, environ))


def _first_set(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    return next((name for name in names if environ.get(name, "").strip()), None)
