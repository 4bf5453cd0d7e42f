"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from upstack.core.config import ServerConfig, ledger_place, load_config
from upstack.core.errors import ConfigError
from upstack.foundation.upstream.origin import authority

if TYPE_CHECKING:
    from upstack.core.config import Config

DEFAULT_CONFIG = Path("upstack.toml")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="The configuration; default: ./upstack.toml where it exists.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs.")]
LedgerOption = Annotated[
    str | None, typer.Option("--ledger", help="The ledger, a file or a PostgreSQL URL; default: the configured one.")
]
ReplayedOption = Annotated[
    Path | None, typer.Option("--replay", help="The traffic that the gateway answers from, where it does.")
]
UrlOption = Annotated[
    str | None, typer.Option("--url", help="The running gateway; default: where the configuration has it listen.")
]


def config_path(given: Path | None) -> Path | None:
    """The file to read: the given one, else ./upstack.toml if it is there."""
    if given is not None:
        return given
    return DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None


def look_here() -> None:
    """Find modules in the current folder, too, behind all others: a grader of the user's lies where they are."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def read(given: Path | None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration as `serve` would. Raises ConfigError."""
    return load_config(config_path(given), environ)


def ledger_of(given: str | None, config: Path | None) -> str:
    """Where the ledger is: the given one, else the configured one. Raises ConfigError."""
    return ledger_place(read(config).server.ledger if given is None else given)


def keystore_of(ledger: str | None, config: Path | None) -> str | None:
    """The configured keystore; None: it is in its usual place, as for a ledger that is named. Raises ConfigError."""
    return read(config).server.keystore if ledger is None or config is not None else None


def gateway_url(url: str | None, config: Path | None) -> str:
    """Where a gateway is looked for: `url`, else where the configuration has it listen; no slash at the end."""
    if url is not None:
        return tidy(url)
    return url_of(read(config).server)


def url_of(server: ServerConfig) -> str:
    """Where a gateway with this configuration is reached."""
    return f"http://{authority(server.host, server.port)}"


def tidy(url: str) -> str:
    """Read a gateway's URL as people write it: with or without scheme, slash and /v1. Raises ConfigError."""
    text = url.strip()
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f'--url "{url}": expected a URL such as http://127.0.0.1:4000')
    return text.rstrip("/").removesuffix("/v1").rstrip("/")
