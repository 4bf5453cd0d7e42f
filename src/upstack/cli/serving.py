"""`upstack serve`: the gateway until it is told to stop."""

from __future__ import annotations

import json

import msgspec

from upstack.application.gateway import server


def run(options: server.Options, *, as_json: bool) -> None:
    """Serve; with `as_json` standard output holds one line, once the gateway can be connected to."""
    server.run(options, _tell if as_json else server.announce)


def _tell(listening: server.Listening) -> None:
    server.announce(listening)
    print(json.dumps(msgspec.to_builtins(listening)), flush=True)
