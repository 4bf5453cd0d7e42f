"""From the file, the environment and its secret references to a configuration that holds together."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from upstack.core.config.checks import check, check_prices, check_range
from upstack.core.config.rights import RightsConfig, SaidConfig, Text, Unless
from upstack.core.config.tables import (
    BudgetConfig,
    Config,
    KeyConfig,
    LoopConfig,
    PriceConfig,
    PriceFile,
    ProviderConfig,
    RateConfig,
    RouteConfig,
    ServerConfig,
    TaskConfig,
    TeamConfig,
    TimeoutsConfig,
)
from upstack.core.errors import ConfigError
from upstack.core.mistakes import in_words, split
from upstack.core.store.places import is_postgres

_Whole = TypeVar("_Whole", Config, PriceFile)


def load_config(path: Path | None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read `path` (None: defaults alone), then the environment's overrides of `[server]`.

    Raises ConfigError with the file, the key and what is allowed.
    """
    data: dict[str, Any] = {}
    if path is not None:
        data = _read_toml(path)
    server = data.setdefault("server", {})
    if isinstance(server, dict):
        server.update(_from_environment(environ))
    source = str(path) if path else "the environment"
    config = _convert(data, Config, source)
    check(config, source)
    return config


def load_price_file(path: Path) -> dict[str, PriceConfig]:
    """Read a file that holds `[prices]` alone. Raises ConfigError as `load_config` does."""
    prices = _convert(_read_toml(path), PriceFile, str(path)).prices
    check_prices(prices, str(path))
    return prices


def resolve_secret(reference: str, where: str, environ: Mapping[str, str] = os.environ) -> str:
    """Turn `env:NAME` or `file:/path` into the secret; ConfigError names `where` and never shows a value."""
    kind, _, rest = reference.partition(":")
    if kind == "env" and rest:
        value = environ.get(rest, "").strip()
        if not value:
            variable = f"the environment variable {rest}" if _is_variable(rest) else f"what follows env: ({_UNSHOWN})"
            raise ConfigError(f"{where}: {variable} is not set")
        return _header_safe(value, where)
    if kind == "file" and rest:
        file = rest if _is_path(rest) else f"what follows file: ({_UNSHOWN})"
        try:
            value = Path(rest).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{where}: cannot read {file}: {type(error).__name__}") from None
        if not value:
            raise ConfigError(f"{where}: {file} is empty")
        return _header_safe(value, where)
    raise ConfigError(f'{where}: a secret is a reference, "env:NAME" or "file:/path", never the value itself')


def ledger_place(place: str, environ: Mapping[str, str] = os.environ) -> str:
    """Say where the ledger is: a file's path or a PostgreSQL URL, which a secret reference may stand for."""
    referred = place.startswith(("env:", "file:"))
    if referred:
        place = resolve_secret(place, "server.ledger", environ)
    user, at, _ = place.partition("://")[2].rpartition("@")
    if re.search("[@/?#]", user):  # a look-up of the host would send half a password to a name server
        raise ConfigError("server.ledger: write @ / ? # of a user or password as %40 %2F %3F %23")
    if not referred and ((at and ":" in user) or ("://" in place and "password=" in place)):
        raise ConfigError(
            'server.ledger: a URL with a password is a secret: "env:NAME" or "file:/path" say where it is'
        )
    if "://" in place and not is_postgres(place):
        raise ConfigError(f'server.ledger: expected a file or postgresql://USER@HOST/DATABASE, got "{place}"')
    return place


# Some write the key itself after env: or file:, and it must not come back in an error.
_UNSHOWN = "not shown, as it could be the key itself"


def _is_variable(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text) is not None and not _like_a_key(text)


def _is_path(text: str) -> bool:
    return re.search(r"[/.]", text) is not None and not any(map(_like_a_key, text.split("/")))


def _like_a_key(text: str) -> bool:
    mixed = re.search(r"[a-z]", text) is not None and re.search(r"\d", text) is not None
    return text.startswith(("sk-", "sk_")) or (len(text) > 20 and mixed)


def _header_safe(value: str, where: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ConfigError(f"{where}: the secret holds blanks, control or non-ASCII characters")
    return value


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    except ValueError:  # the one kind that the parser lets through: Python reads no integer of thousands of digits
        raise ConfigError(f"{path}: holds a number of too many digits") from None
    if "\\u0000" in text.lower() and "\\x00" in repr(data):  # no path, name or URL may hold it
        raise ConfigError(f"{path}: a text holds the character NUL")
    return data


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    fields = {f"{_VARIABLE}{field.name.upper()}": field for field in msgspec.structs.fields(ServerConfig)}
    found: dict[str, Any] = {}
    for variable, value in environ.items():
        if not variable.startswith(_VARIABLE):
            continue
        field = fields.get(variable)
        if field is None:
            raise ConfigError(f"the environment: unknown variable `{variable}`{_allowed(variable, list(fields))}")
        try:
            found[field.name] = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigError(in_words(variable, str(error)) + _choices(field.type, str(error))) from None
        check_range(field.name, found[field.name], variable)
    return found


def _convert(data: dict[str, Any], kind: type[_Whole], source: str) -> _Whole:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_explain(str(error), data, kind)}") from None


_VARIABLE = "UPSTACK_SERVER_"
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")
_TABLES: dict[str, type[msgspec.Struct]] = {
    "server": ServerConfig,
    "providers.*": ProviderConfig,
    "providers.*.timeouts": TimeoutsConfig,
    "routes.*": RouteConfig,
    "tasks.*": TaskConfig,
    "tasks.*.budget_usd": BudgetConfig,
    "tasks.*.rate": RateConfig,
    "prices.*": PriceConfig,
    "keys.*": KeyConfig,
    "keys.*.budget_usd": BudgetConfig,
    "keys.*.rate": RateConfig,
    "teams.*": TeamConfig,
    "teams.*.budget_usd": BudgetConfig,
    "teams.*.rate": RateConfig,
    "loop": LoopConfig,
    "rights": RightsConfig,
    "rights.tasks.*": SaidConfig,
    "rights.terms.*": Text,
    "rights.licences.*": Text,
    "rights.terms.*.unless.*": Unless,
    "rights.licences.*.unless.*": Unless,
}


def _explain(message: str, data: dict[str, Any], kind: type[msgspec.Struct]) -> str:
    """Say what is wrong where; an unknown key in full: which, what is allowed, what was probably meant."""
    path, said = split(message)
    place = _at_fault(path, data)
    unknown = _UNKNOWN.fullmatch(said)
    if unknown is None:
        parent, _, name = path.replace("[...]", ".*").rpartition(".")
        fields = msgspec.structs.fields(_TABLES[parent]) if parent in _TABLES else ()
        types = {field.name: field.type for field in fields}
        words = in_words(place, said.replace(" | null`", "`").replace("`object`", "`table`"))  # as TOML has it
        return words + _choices(types.get(name), said)
    table = _TABLES[path.replace("[...]", ".*")] if path else kind
    key = f"{place}.{unknown['field']}".removeprefix(".")
    return f"unknown key `{key}`{_allowed(unknown['field'], [field.name for field in msgspec.structs.fields(table)])}"


def _allowed(given: str, names: list[str]) -> str:
    near = difflib.get_close_matches(given, names, 1)
    return f"{f'; did you mean `{near[0]}`?' if near else '.'} Allowed here: {', '.join(names)}"


def _choices(kind: Any, said: str) -> str:
    """List what is allowed where the mistake is a text that is none of `kind`'s."""
    return f". Allowed: {', '.join(_texts(kind))}" if said.startswith("Invalid enum value") else ""


def _texts(kind: Any) -> list[str]:
    """The texts of a Literal, or of one among other kinds."""
    return [text for part in get_args(kind) for text in ([part] if isinstance(part, str) else _texts(part))]


def _at_fault(path: str, data: dict[str, Any]) -> str:
    """Put the name of the first row that cannot be read in place of a path's `[...]`."""
    table, several, rest = path.partition("[...]")
    rows: Any = data
    for part in table.split(".") if several else ():
        rows = rows.get(part, {})
    for name, row in rows.items() if several and f"{table}.*" in _TABLES else ():
        try:
            msgspec.convert(row, _TABLES[f"{table}.*"])
        except msgspec.ValidationError:
            return f"{table}.{name}{rest}"
    return path
