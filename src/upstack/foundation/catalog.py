"""Providers as data: the catalogue's rows, and what the environment and the configuration make of them.

A provider is a row of `providers.toml`. It becomes a `Provider` when its key (for self-hosted ones: its URL) is in the
environment, or when `[providers.NAME]` names it. The configuration wins over the environment, the environment over the
row. `OPENAI_BASE_URL` never redirects the openai row: it is how clients are pointed at this gateway.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec

from upstack.core.config import Config, ProviderConfig, resolve_secret
from upstack.core.errors import ConfigError
from upstack.core.types import Provider, Timeouts, Tls
from upstack.foundation.upstream.origin import is_loopback

_CHAT_PATH = "/chat/completions"
_BEARER = "bearer"
_NONE = "none"
_HOST = r"[a-z0-9._-]+|[0-9a-f:.]+"  # a name (punycode where it is not ASCII), or an address


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one provider. Strings only, no secrets."""

    name: str
    source: str  # a page that documents it, or the quirk it has
    base_url: str | None = None  # None: only the environment or the configuration knows it
    key_env: tuple[str, ...] = ()  # the first one that is set holds the key
    url_env: tuple[str, ...] = ()  # the first one that is set holds the URL
    url_path: str = ""  # what a URL from outside gets appended, unless it ends in a version ("/v1") already
    default_port: int | None = None  # of a host given without scheme and port
    auth: str = _BEARER  # "bearer", "none", or the name of the header that takes the key
    chat_path: str = _CHAT_PATH
    version_env: str | None = None  # holds the api-version
    versioned_chat_path: str | None = None  # takes the place of url_path and chat_path where there is an api-version
    headers_env: dict[str, str] = {}  # header name -> the environment variable that holds its value, where it is set
    usage_in_stream: bool = True  # understands stream_options.include_usage
    prices: str | None = None  # the provider's name in the price list; None: it has none there
    local: bool = False  # on the user's own hardware: found by its URL, needs no key
    unsupported: str | None = None  # why it cannot be called yet


@functools.cache
def rows() -> tuple[Row, ...]:
    """All rows of the catalogue, in the order of the file."""
    data = tomllib.loads(Path(__file__).with_name("providers.toml").read_text(encoding="utf-8"))
    return tuple(msgspec.convert({"name": name, **row}, Row) for name, row in data.items())


@functools.cache
def _by_name() -> dict[str, Row]:
    return {row.name: row for row in rows()}


def find_row(name: str) -> Row | None:
    """The row of that name, or None."""
    return _by_name().get(name)


def unsupported() -> dict[str, str]:
    """The rows that cannot be called yet: name -> why, and what to do instead."""
    return {row.name: row.unsupported for row in rows() if row.unsupported is not None}


def providers_from(config: Config, environ: Mapping[str, str]) -> dict[str, Provider]:
    """Every provider that can be called, by name.

    Raises ConfigError where a `[providers.X]` table cannot be used. A row that only the environment offers and that is
    broken there (an unusable key or URL) is left out instead; `warnings` and `why_missing` say so.
    """
    found = {}
    for row in rows():
        try:
            provider = _from_environment(row, environ)
        except ConfigError:
            continue
        if provider is not None:
            found[row.name] = provider
    for name, table in config.providers.items():
        found[name] = _from_table(name, table, environ)
    return found


def warnings(config: Config, environ: Mapping[str, str]) -> list[str]:
    """What is allowed but should be known: sentences without secrets. Raises ConfigError as `providers_from` does."""
    found = []
    for provider in providers_from(config, environ).values():
        url = urlsplit(provider.base_url)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            found.append(f"{provider.name}: {url.hostname} is called over plain http: keys and content go unencrypted")
    for row in rows():
        if row.name not in config.providers:
            try:
                _from_environment(row, environ)
            except ConfigError as error:
                found.append(f"{row.name} is left out: {error.message}")
    found.extend(
        f"{name} is set: the openai provider ignores it, as it usually points clients at this gateway. "
        "To redirect the provider, set [providers.openai] base_url"
        for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE")
        if environ.get(name, "").strip()
    )
    return found


def why_missing(name: str, environ: Mapping[str, str]) -> str:
    """Why a route cannot name this provider, and the remedy; for a name that `providers_from` did not return."""
    row = find_row(name)
    if row is None:
        near = difflib.get_close_matches(name, _by_name(), 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        return f"there is no provider {name}.{hint} Give it a table [providers.{name}] with base_url"
    if row.unsupported is not None:
        return f"{name} cannot be called yet: {row.unsupported}"
    try:
        _from_environment(row, environ)
    except ConfigError as error:
        return f"{name} is left out: {error.message}"
    wanted = [] if row.local or not row.key_env else [" or ".join(row.key_env)]
    if row.base_url is None or row.local:
        wanted.append(" or ".join(row.url_env))
    return f"{name} is not configured: set {' and '.join(wanted)}, or write a table [providers.{name}]"


# --- One provider ----------------------------------------------------------------------------------------------------


def _from_environment(row: Row, environ: Mapping[str, str]) -> Provider | None:
    """The row as the environment offers it; None where its key (local: its URL) is not there."""
    if row.unsupported is not None:
        return None
    has_key = _first_set(row.key_env, environ) is not None
    has_url = _first_set(row.url_env, environ) is not None
    # A key alone does not say that a server of one's own is running.
    if not (has_url if row.local else has_key and (has_url or row.base_url is not None)):
        return None
    return _build(row, ProviderConfig(), environ, row.name)


def _from_table(name: str, table: ProviderConfig, environ: Mapping[str, str]) -> Provider:
    where = f"providers.{name}"
    row = find_row(name)
    if row is None or (row.unsupported is not None and table.base_url is not None):
        if table.base_url is None:
            near = difflib.get_close_matches(name, _by_name(), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{where}.base_url: needed, as {name} is not in the catalogue{hint}")
        row = Row(name=name, source="", auth=_BEARER if table.api_key or table.api_keys else _NONE)
    elif row.unsupported is not None:
        raise ConfigError(f"{where}: {name} cannot be called yet: {row.unsupported}")
    return _build(row, table, environ, where)


def _build(row: Row, table: ProviderConfig, environ: Mapping[str, str], where: str) -> Provider:
    base_url = _base_url(row, table, environ, where)
    version = table.api_version or (environ.get(row.version_env, "").strip() if row.version_env else "")
    if version and not re.fullmatch(r"[A-Za-z0-9.-]+", version):
        raise ConfigError(f"{where}.api_version: letters, digits, . and - only")
    if row.versioned_chat_path is not None and _ends_in_version(base_url):
        if table.api_version:
            raise ConfigError(f"{where}.api_version: the API at a URL that ends in its version takes none")
        version = ""  # as the environment's, which may be there for others
    chat_path = row.chat_path
    if version and row.versioned_chat_path is not None:
        chat_path = row.versioned_chat_path
    elif row.url_path and not _ends_in_version(base_url):
        base_url += row.url_path
    return Provider(
        name=row.name,
        backend="openai",
        base_url=base_url,
        headers=_credentials(row, table, environ, where),
        chat_path=_checked_path(table.chat_path or chat_path, where),
        query=(("api-version", version),) if version else (),
        timeouts=_timeouts(table, where),
        tls=_tls(table, where),
        usage_in_stream=row.usage_in_stream if table.usage_in_stream is None else table.usage_in_stream,
        catalog=table.prices_from if table.prices_from is not None else row.prices or "",
    )


# --- Where it is -----------------------------------------------------------------------------------------------------


def _base_url(row: Row, table: ProviderConfig, environ: Mapping[str, str], where: str) -> str:
    if table.base_url is not None:
        return _checked_url(table.base_url.strip(), f"{where}.base_url")
    name = _first_set(row.url_env, environ)
    if name is not None:
        return _checked_url(_with_scheme(environ[name], row.default_port), f"the environment variable {name}")
    if row.base_url is None:
        raise ConfigError(f"{where}.base_url: needed here, or in the environment: {' or '.join(row.url_env)}")
    return row.base_url


def _with_scheme(value: str, default_port: int | None) -> str:
    """Read a URL the way Ollama reads OLLAMA_HOST: a bare host or address, with or without port, is http."""
    value = value.strip().strip("\"'").strip()
    if "://" in value:
        return value
    host, slash, path = value.partition("/")
    port = ""
    if found := re.fullmatch(r"(\[[^\]]*\]|[^:]*):(\d+)", host):
        host, port = found[1], found[2]
    host = host or "127.0.0.1"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    if not port and default_port is not None:
        port = str(default_port)
    return f"http://{host}{':' if port else ''}{port}{slash}{path}"


def _checked_url(value: str, where: str) -> str:
    """Refuse what is not a plain http(s) URL; never repeats the value, which may hold a password."""
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ConfigError(f"{where}: a URL has no blanks, control or non-ASCII characters")
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError:
        raise ConfigError(f"{where}: not a URL: bad host or port") from None
    if url.scheme not in {"http", "https"}:
        raise ConfigError(f"{where}: expected http:// or https://")
    if not re.fullmatch(_HOST, url.hostname or "") or port == 0:
        raise ConfigError(f"{where}: the URL needs a host, and a port other than 0")
    if "@" in url.netloc:
        raise ConfigError(f"{where}: no user name or password in the URL; keys go into api_key")
    if "?" in value or "#" in value:
        raise ConfigError(f"{where}: no query or fragment in the URL")
    return _reachable(url).geturl().rstrip("/")


def _reachable(url: SplitResult) -> SplitResult:
    """An address to listen on everywhere ("0.0.0.0", "::") as the address where that is reached from here."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(url.hostname or "")  # noqa: S104 (read, not bound)
    if loopback is None:
        return url
    return url._replace(netloc=loopback if url.port is None else f"{loopback}:{url.port}")


def _ends_in_version(url: str) -> bool:
    return re.fullmatch(r"v\d+[a-z0-9]*", urlsplit(url).path.rpartition("/")[2]) is not None


def _checked_path(path: str, where: str) -> str:
    if not re.fullmatch(r"/[\x21-\x7e]*", path) or "?" in path or "#" in path:
        raise ConfigError(f"{where}.chat_path: starts with / and has no blanks, query or fragment")
    if "{" in path.replace("{model}", "") or "}" in path.replace("{model}", ""):
        raise ConfigError(f"{where}.chat_path: the only placeholder is {{model}}")
    return path


# --- How it is asked -------------------------------------------------------------------------------------------------

# Headers that are ours to set; a key in one of them would break the request.
_OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "transfer-encoding",
        "upgrade",
    }
)


def _credentials(
    row: Row, table: ProviderConfig, environ: Mapping[str, str], where: str
) -> tuple[tuple[tuple[str, str], ...], ...]:
    """One tuple of header pairs per key; `((),)` where none is needed."""
    auth = table.auth or row.auth
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", auth) or auth.lower() in _OURS:
        raise ConfigError(f'{where}.auth: "bearer", "none", or the name of a header that takes the key')
    extra = tuple(
        (header, resolve_secret(f"env:{name}", where, environ))
        for header, name in row.headers_env.items()
        if environ.get(name, "").strip()
    )
    keys = _keys(row, table, environ, where)
    if auth.lower() == _NONE:
        if table.api_key or table.api_keys:
            raise ConfigError(f'{where}: auth = "none" and a key contradict each other')
        return (extra,)
    if not keys:
        if row.local:
            return (extra,)
        hint = f"set {' or '.join(row.key_env)}, or api_key" if row.key_env else "set api_key"
        raise ConfigError(f'{where}: no key: {hint} = "env:NAME"; auth = "none" where it needs none')
    if auth.lower() == _BEARER:
        return tuple((("authorization", f"Bearer {key}"), *extra) for key in keys)
    return tuple(((auth.lower(), key), *extra) for key in keys)


def _keys(row: Row, table: ProviderConfig, environ: Mapping[str, str], where: str) -> list[str]:
    if table.api_key and table.api_keys:
        raise ConfigError(f"{where}: give api_key or api_keys, not both")
    if table.api_keys:
        return [resolve_secret(ref, f"{where}.api_keys[{i}]", environ) for i, ref in enumerate(table.api_keys)]
    if table.api_key:
        return [resolve_secret(table.api_key, f"{where}.api_key", environ)]
    name = _first_set(row.key_env, environ)
    # `where` is of no help to someone who set an environment variable and wrote no table: name the variable.
    return [] if name is None else [resolve_secret(f"env:{name}", f"the environment variable {name}", environ)]


def _first_set(names: tuple[str, ...], environ: Mapping[str, str]) -> str | None:
    return next((name for name in names if environ.get(name, "").strip()), None)


def _timeouts(table: ProviderConfig, where: str) -> Timeouts:
    limits = msgspec.structs.asdict(table.timeouts)
    for name, seconds in limits.items():
        if not 0 < seconds < float("inf"):
            raise ConfigError(f"{where}.timeouts.{name}: a positive number of seconds")
    return Timeouts(**limits)


def _tls(table: ProviderConfig, where: str) -> Tls:
    if table.client_key and not table.client_cert:
        raise ConfigError(f"{where}.client_key: needs client_cert beside it")
    return Tls(ca_bundle=table.ca_bundle, client_cert=table.client_cert, client_key=table.client_key)
