"""`upstack.toml`: one frozen struct per table. What is read here is checked here, and nowhere else.

Order: default < file < environment (`UPSTACK_SERVER_PORT=...`) < flag. Unknown keys are errors that name the key, what
is allowed and what was probably meant; so are unknown variables that begin with `UPSTACK_SERVER_`. Secrets are
references (`env:NAME`, `file:/path`), resolved late, never values.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import msgspec

from upstack.core.errors import ConfigError
from upstack.core.mistakes import in_words, split
from upstack.core.store.places import is_postgres
from upstack.core.types import DAY_S, Capture

NAME = r"[A-Za-z0-9][A-Za-z0-9._:-]*"  # of providers, routes, tasks, keys and teams
HASH = r"sha256:[0-9a-f]{64}"  # of a virtual key


class TimeoutsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one attempt, in seconds."""

    connect: float = 10.0  # to a connection, TLS included
    first_byte: float = 120.0  # from the request sent to the answer's first byte, and to a stream's first content
    between_bytes: float = 60.0  # of silence in the middle of an answer; not counted while the caller does not read
    total: float = 900.0  # of the whole attempt


class ProviderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A supplier. A name from the catalogue needs only what differs from its row."""

    base_url: str | None = None  # up to and with "/v1"; the catalogue knows that of its rows
    api_key: str | None = None  # a secret reference: "env:NAME" or "file:/path"
    api_keys: tuple[str, ...] = ()  # several: the load is balanced over them
    auth: str | None = None  # "bearer", "none", or the name of the header that takes the key ("api-key")
    api_version: str | None = None  # goes into the query of every call, as Azure asks
    chat_path: str | None = None  # after base_url; may hold {model}
    usage_in_stream: bool | None = None  # understands stream_options.include_usage; false for those that refuse it
    prices_from: str | None = None  # the provider's name in the price list
    timeouts: TimeoutsConfig = TimeoutsConfig()
    ca_bundle: str | None = None  # PEM file of authorities, in place of the system's
    client_cert: str | None = None  # PEM file shown to the provider
    client_key: str | None = None  # PEM file of its key, where that is apart
    residency: str | None = None  # label of its routes, such as "onsite"


class BudgetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that may be spent, in USD; days and months are those of UTC."""

    day: float | None = None
    month: float | None = None
    total: float | None = None


class RateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be asked. A minute is the last 60 seconds."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None  # input and output
    parallel_requests: int | None = None


class RouteConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route with a name of its own."""

    model: str  # "provider/model"
    residency: str | None = None  # label, in place of the provider's
    max_output_tokens: int | None = None  # the most its model says in one answer: bounds what a budget must hold for it


class TaskConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A recurring kind of request: which routes may answer it, in which order."""

    reference: str | None = None  # the route one would pay for if price did not matter
    candidates: tuple[str, ...] = ()  # asked in this order; the reference comes last where it is not among them
    strategy: Literal["fallback", "single"] = "fallback"  # "single" asks the first alone
    capture: Capture | None = None  # in place of server.capture
    residency: tuple[str, ...] = ()  # answers may come only from routes with one of these labels; empty: from any
    encrypt: bool | None = None  # in place of server.encrypt
    value_usd: float | None = None  # what a good answer is worth
    maturity_days: float = 0.0  # in which an answer without an outcome is not yet known to be good or bad
    on_unprofitable: Literal["report", "refuse"] = "report"  # what becomes of a request expected to cost more than that
    grader: str | None = (
        None  # "exact", "contains", each with normalisers ("exact:number"), "json", or "module:function"
    )
    fields: dict[str, float] = {}  # weights of the JSON grader's fields; 1 where none is said, 0 leaves one out
    max_loss: float = 0.02  # excess loss over the reference's that `upstack backtest` tolerates
    confidence: float = 0.95  # that it is not above that
    budget_usd: BudgetConfig = BudgetConfig()
    rate: RateConfig = RateConfig()


class KeyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A virtual key, as `upstack keys new NAME` makes it. With the first one, nobody is served without."""

    hash: str  # of the key, which is kept nowhere
    role: Literal["app", "feedback", "admin"] = "app"  # asks models; tells outcomes of any receipt; /admin and /metrics
    team: str | None = None  # that it belongs to
    tasks: tuple[str, ...] = ()  # that it may ask for; with neither tasks nor routes: anything
    routes: tuple[str, ...] = ()  # that it may ask for by name
    expires: datetime | None = None  # when it ends, such as 2027-01-31T00:00:00Z
    old_hash: str | None = None  # of the key before it, which is good until old_until
    old_until: datetime | None = None
    capture: Capture | None = None  # the least of this and what the task or server says is kept
    budget_usd: BudgetConfig = BudgetConfig()
    rate: RateConfig = RateConfig()


class TeamConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits that all keys of a team share."""

    budget_usd: BudgetConfig = BudgetConfig()
    rate: RateConfig = RateConfig()


class PriceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """USD per million tokens, or per hour. Stands before the release's price list: for newer prices, and your own."""

    input: float | None = None
    output: float | None = None
    cached_input: float | None = None  # read from the provider's cache; without it, what input costs
    usd_per_hour: float | None = None  # of a machine of your own: what each second of an answer costs, 3600 times over


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gateway process."""

    host: str = "127.0.0.1"  # beyond loopback only where there are keys
    port: int = 4000  # 0 picks a free one
    workers: int = 1  # processes that serve; more than one share the port, the limits and the ledger's writer
    receipts: Literal["required", "best-effort", "off"] = "required"  # waited for; losses counted; none, for measuring
    capture: Capture = "full"  # what the ledger keeps of requests and answers: them, a salted digest, or nothing
    ledger: str = "upstack.db"  # a SQLite file, or a PostgreSQL URL; a URL with a password: "env:NAME" or "file:/path"
    log: Literal["text", "json"] = "text"  # on standard error; ids and sizes, never content or secrets
    log_level: Literal["debug", "info", "warning"] = "info"  # debug: a line for each request
    encrypt: bool = False  # what the ledger keeps of requests and answers, each subject's under a key of its own
    keystore: str | None = None  # the file of its keys; default: the ledger's name and .keys, or upstack.keys
    retention_days: float = 0.0  # after which receipts and outcomes are removed; 0: never
    content_retention_days: float = 0.0  # after which requests and answers alone are
    default_reserve_tokens: int = 4096  # of an answer that neither max_tokens nor its route bounds; of an image by URL
    default_reserve_seconds: float = 60.0  # of an answer priced by the hour
    max_body_bytes: int = 32 * 1024 * 1024  # of a request
    max_answer_bytes: int = 32 * 1024 * 1024  # of an answer, and of what the ledger keeps of a streamed one
    ledger_queue_bytes: int = 64 * 1024 * 1024  # waiting to be written; above it requests are refused or rows dropped
    request_timeout: float = 30.0  # seconds a client may take to send its request
    keep_alive: float = 75.0  # seconds an idle client connection is kept
    drain: float = 30.0  # seconds streams may take to finish after SIGTERM
    retries: int = 2  # attempts after the first pass over a plan's routes, at most 100


_MOST_USD = 1_000_000
_MOST_DAYS = 36_500
_MOST = 256 * 1024 * 1024  # request and answer share a row of the ledger, which ends at 10**9 bytes
RANGES: dict[str, tuple[float, float]] = {  # of the numbers above, both ends included
    "port": (0, 65_535),
    "workers": (1, 256),
    "max_body_bytes": (1, _MOST),
    "max_answer_bytes": (1, _MOST),
    "ledger_queue_bytes": (1, 2**40),
    "request_timeout": (0.001, DAY_S),
    "keep_alive": (0.0, DAY_S),
    "drain": (0.0, DAY_S),
    "retries": (0, 100),
    "retention_days": (0.0, _MOST_DAYS),
    "content_retention_days": (0.0, _MOST_DAYS),
    "default_reserve_tokens": (1, 10_000_000),
    "default_reserve_seconds": (0.001, DAY_S),
}


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    providers: dict[str, ProviderConfig] = {}
    routes: dict[str, RouteConfig] = {}
    tasks: dict[str, TaskConfig] = {}
    prices: dict[str, PriceConfig] = {}  # by "provider/model" or a route's name
    keys: dict[str, KeyConfig] = {}
    teams: dict[str, TeamConfig] = {}


class PriceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of prices and nothing else."""

    prices: dict[str, PriceConfig] = {}


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
    _check(config, source)
    return config


def load_price_file(path: Path) -> dict[str, PriceConfig]:
    """Read a file that holds `[prices]` alone. Raises ConfigError as `load_config` does."""
    prices = _convert(_read_toml(path), PriceFile, str(path)).prices
    _check_prices(prices, str(path))
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
        _check_range(field.name, found[field.name], variable)
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
    for name, row in data[table].items() if several else ():
        try:
            msgspec.convert(row, _TABLES[f"{table}.*"])
        except msgspec.ValidationError:
            return f"{table}.{name}{rest}"
    return path


def _check(config: Config, source: str) -> None:
    for table in ("providers", "routes", "tasks", "keys", "teams"):
        for name in getattr(config, table):
            if not re.fullmatch(NAME, name):
                raise ConfigError(f"{source}: {table}.{name}: a name has letters, digits and . _ : - only")
    for name, route in config.routes.items():
        if "/" not in route.model:
            raise ConfigError(f'{source}: routes.{name}.model: expected "provider/model", got "{route.model}"')
    if "task" in config.providers:
        raise ConfigError(f"{source}: providers.task: task/NAME asks for a task; name the provider otherwise")
    for name, task in config.tasks.items():
        if not task.candidates and task.reference is None:
            raise ConfigError(f"{source}: tasks.{name}: name a reference, or candidates in fallback order")
        for field, value in (("max_loss", task.max_loss), ("confidence", task.confidence)):
            if not 0 < value < 1:
                raise ConfigError(f"{source}: tasks.{name}.{field}: lies between 0 and 1")
        for field, weight in task.fields.items():
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"{source}: tasks.{name}.fields.{field}: a weight is 0 or more")
        if len(set(task.candidates)) < len(task.candidates):
            raise ConfigError(f"{source}: tasks.{name}.candidates: names one of them twice")
    _check_prices(config.prices, source)
    _check_keys(config, source)
    _check_limits(config, source)
    for name in RANGES:
        _check_range(name, getattr(config.server, name), f"{source}: server.{name}")


def _check_prices(prices: dict[str, PriceConfig], source: str) -> None:
    for name, price in prices.items():
        if any(value is not None and not 0 <= value < 1e6 for value in msgspec.structs.astuple(price)):
            raise ConfigError(f"{source}: prices.{name}: USD per million tokens or per hour lie in 0 to 1,000,000")
        tokens = (price.input, price.output, price.cached_input)
        if (price.usd_per_hour is None and None in tokens[:2]) or (
            price.usd_per_hour is not None and tokens != (None, None, None)
        ):
            raise ConfigError(f"{source}: prices.{name}: give input and output, or usd_per_hour alone")


def _check_keys(config: Config, source: str) -> None:
    seen: dict[str, str] = {}
    for name, key in config.keys.items():
        where = f"{source}: keys.{name}"
        for field, digest in (("hash", key.hash), ("old_hash", key.old_hash)):
            if digest is None:
                continue
            if not re.fullmatch(HASH, digest):  # what stands there may be the key itself, and is not shown
                raise ConfigError(
                    f'{where}.{field}: expected "sha256:" and 64 hexadecimal digits, of `upstack keys new`'
                )
            if digest in seen:
                raise ConfigError(f"{where}.{field}: the same as that of keys.{seen[digest]}")
            seen[digest] = name
        if (key.old_hash is None) != (key.old_until is None):
            raise ConfigError(f"{where}: old_hash and old_until come together")
        for field, moment in (("expires", key.expires), ("old_until", key.old_until)):
            if moment is not None and moment.tzinfo is None:
                raise ConfigError(f"{where}.{field}: say of which time zone, such as 2027-01-31T00:00:00Z")
        for task in key.tasks:
            if task not in config.tasks:
                raise ConfigError(f'{where}.tasks: there is no task "{task}"')


def _check_limits(config: Config, source: str) -> None:
    for table in ("keys", "teams", "tasks"):
        for name, row in getattr(config, table).items():
            where = f"{source}: {table}.{name}"
            amounts = dict(zip(("day", "month", "total"), msgspec.structs.astuple(row.budget_usd), strict=True))
            if table == "tasks":
                amounts["value_usd"] = row.value_usd
            for field, amount in amounts.items():
                if amount is not None and not 0 <= amount <= _MOST_USD:
                    key = field if field == "value_usd" else f"budget_usd.{field}"
                    raise ConfigError(f"{where}.{key}: USD lie in 0 to {_MOST_USD:,}")
            if table == "tasks" and not 0 <= row.maturity_days <= _MOST_DAYS:
                raise ConfigError(f"{where}.maturity_days: lies in 0 to {_MOST_DAYS:,}")
            for field, limit in msgspec.structs.asdict(row.rate).items():
                if limit is not None and not 0 <= limit <= 10**9:
                    raise ConfigError(f"{where}.rate.{field}: lies in 0 to 1,000,000,000")
    for name, route in config.routes.items():
        if route.max_output_tokens is not None and not 1 <= route.max_output_tokens <= 10**7:
            raise ConfigError(f"{source}: routes.{name}.max_output_tokens: lies in 1 to 10,000,000")


def _check_range(name: str, value: Any, where: str) -> None:
    if name in RANGES:
        low, high = RANGES[name]
        if not low <= value <= high:  # NaN is in no range
            raise ConfigError(f"{where}: lies in {low:,} to {high:,}")
