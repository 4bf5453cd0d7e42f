"""`upstack serve`: the gateway until it is told to stop."""

from __future__ import annotations

import json

import msgspec

from upstack.application.gateway import server, workers
from upstack.application.gateway.setup import Listening, Options, read_config
from upstack.cli.options import look_here


def run(options: Options, *, as_json: bool) -> None:
    """Serve; with `as_json` standard output holds one line, once the gateway can be connected to."""
    look_here()
    ready = _tell if as_json else server.announce
    if read_config(options).server.workers > 1:
        workers.run(options, ready)
    else:
        server.run(options, ready)


def _tell(listening: Listening) -> None:
    server.announce(listening)
    print(json.dumps(msgspec.to_builtins(listening)), flush=True)
