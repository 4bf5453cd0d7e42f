"""`python -m upstack.testing echo|scripted|flaky|flood --port N`: a fake provider in the foreground."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import msgspec

from upstack.testing.answers import Answer
from upstack.testing.faults import Fault
from upstack.testing.flaky import FlakyProvider
from upstack.testing.providers import EchoProvider, FloodProvider, ScriptedProvider
from upstack.testing.server import FakeProvider


def main(arguments: list[str] | None = None) -> None:
    """Start the provider, print its base URL, and run until SIGINT or SIGTERM."""
    options = _parser().parse_args(arguments)
    _provider(options).serve_forever()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m upstack.testing", description="A fake provider on 127.0.0.1.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    echo = kinds.add_parser("echo", help="answers with the last user message")
    echo.add_argument("--first-byte-delay", type=float, default=0.0, metavar="SECONDS")
    echo.add_argument("--between-chunks", type=float, default=0.0, metavar="SECONDS")
    scripted = kinds.add_parser("scripted", help="answers from a file, over and over")
    members = ", ".join(Answer.__struct_fields__)
    scripted.add_argument(
        "--answers", type=Path, required=True, metavar="FILE", help=f"JSON lines, each an object with any of {members}"
    )
    flaky = kinds.add_parser("flaky", help="fails in one way")
    faults = [fault.value for fault in Fault]
    flaky.add_argument("--fault", required=True, choices=faults, metavar="FAULT", help=", ".join(faults))
    flaky.add_argument("--share", type=float, default=1.0, help="of the requests that fail (1)")
    flaky.add_argument("--seed", type=int, default=0)
    flaky.add_argument("--tokens-before", type=int, default=3)
    flood = kinds.add_parser("flood", help="streams as fast as it is read")
    flood.add_argument("--megabytes", type=float, default=200.0)
    for kind in (echo, scripted, flaky, flood):
        kind.add_argument("--port", type=int, default=0, help="0, the default: any free one")
    return parser


def _provider(options: argparse.Namespace) -> FakeProvider:
    if options.kind == "echo":
        return EchoProvider(
            first_byte_delay_s=options.first_byte_delay, between_chunks_s=options.between_chunks, port=options.port
        )
    if options.kind == "scripted":
        lines = options.answers.read_bytes().splitlines()
        answers = itertools.cycle([msgspec.json.decode(line, type=Answer) for line in lines if line.strip()])
        return ScriptedProvider(lambda _: next(answers), port=options.port)
    if options.kind == "flaky":
        return FlakyProvider(
            options.fault,
            share=options.share,
            seed=options.seed,
            tokens_before=options.tokens_before,
            port=options.port,
        )
    return FloodProvider(options.megabytes, port=options.port)


if __name__ == "__main__":
    main()
