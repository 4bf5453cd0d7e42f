"""What a gateway is started with: options, configuration, the state of it, and where it says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from upstack.application.gateway.state import build_state
from upstack.core.config import Config, load_config
from upstack.core.errors import ConfigError
from upstack.core.types import State
from upstack.foundation.prices import load_prices_toml
from upstack.foundation.upstream.origin import is_loopback

if TYPE_CHECKING:
    from upstack.foundation.backends.replay import ReplayBackend


class Options(msgspec.Struct, frozen=True):
    """What the command line adds to the file."""

    config: Path | None = None
    replay: Path | None = None  # recorded traffic to answer from
    speed: float = 0.0  # of replayed latency: 0 none, 1 as recorded
    prices: Path | None = None
    server: Mapping[str, Any] = {}  # members of [server] that flags override


class Listening(msgspec.Struct, frozen=True):
    """What a gateway says of itself once it can be connected to."""

    url: str  # with /v1
    providers: list[str]
    receipts: str
    ledger: str | None  # None: nothing is recorded


def read_config(options: Options, environ: Mapping[str, str] = os.environ) -> Config:
    """Default < file < environment < flag. Raises ConfigError."""
    config = load_config(options.config, environ)
    if options.prices is not None:
        config = replace(config, prices={**config.prices, **load_prices_toml(options.prices)})
    config = replace(config, server=replace(config.server, **dict(options.server)))
    if not config.keys:
        _only_loopback(config.server.host)
    return config


def state_of(config: Config, generation: int, replay: ReplayBackend | None) -> State:
    """Lay out the state of a configuration."""
    if replay is None:
        return build_state(config, os.environ, generation)
    from upstack.foundation.backends.replay import replay_providers  # noqa: PLC0415 - only `--replay` needs it

    return build_state(config, os.environ, generation, replayed=replay_providers(replay), models=replay.models)


def _only_loopback(host: str) -> None:
    if not is_loopback(host):
        raise ConfigError(
            f'host "{host}": without keys only loopback (127.0.0.1, ::1, localhost) is served, as everybody who '
            "reaches the port could spend your money; make keys with `upstack keys new NAME`, or use a tunnel (ssh -L)"
        )
