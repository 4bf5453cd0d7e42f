"""CPU a request and a streamed chunk, ours against nginx as a reverse proxy, paired in one run. `make bench`.

wrk is the caller; another nginx (for streams a small Python server) is the provider; neither is counted. CPU is user +
system of all processes of the one under test.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec

from benchmarks.data_plane import footprint, peers, subjects
from benchmarks.data_plane.procs import filesystem
from benchmarks.data_plane.rounds import Load, Row, compare

CHUNKS = 100  # events with content in a stream
STREAM_CONNECTIONS = 32
LIMITS = {  # the most times nginx's CPU, by what is counted and by subject
    "a request, 64 connections": {"upstack, receipts required": 5.0, "upstack, receipts off": 3.5},
    "a request, 16 connections": {"upstack, receipts required": 6.5, "upstack, receipts off": 3.5},
    "a chunk, 32 connections": {"upstack, receipts required": 2.0, "upstack, receipts off": 2.0},
}


def main() -> None:
    """Parse, run, print; exit with 1 where a figure is above its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[64, 16])
    parser.add_argument(
        "--no-peers",
        dest="peers",
        action="store_false",
        help="leave out LiteLLM and Portkey, also where `make bench-peers` has installed them",
    )
    parser.add_argument("--only", choices=["requests", "streams", "footprint"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for tool in ("nginx", "wrk"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: apt-get install {tool}")
    rows: list[Row] = []
    facts: list[footprint.Fact] = []
    with tempfile.TemporaryDirectory(prefix="upstack-bench-") as name:
        folder = Path(name)
        kind = filesystem(folder)
        if kind in {"tmpfs", "ramfs"}:
            sys.exit(f"{folder} lies in memory ({kind}), where a durable receipt costs nothing: set TMPDIR to a disk")
        if options.only in {None, "requests"}:
            rows += _requests(options, folder)
        if options.only in {None, "streams"}:
            rows += _streams(options, folder)
        if options.only in {None, "footprint"}:
            facts += footprint.measure(folder)
    if options.json:
        print(msgspec.json.encode({"rows": rows, "facts": facts}).decode())
    else:
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ledger on {kind}")
        _print(rows, facts)
    above = [f"{row.figure}, {row.subject}: {row.ratio:.2f} x nginx" for row in rows if row.ratio > _limit(row)]
    above += [f"{fact.figure}: {fact.value:.2f} {fact.unit}" for fact in facts if fact.value > fact.limit]
    if above:
        sys.exit("Above the limit: " + "; ".join(above))


def _limit(row: Row) -> float:
    return LIMITS.get(row.figure, {}).get(row.subject, math.inf)


def _requests(options: argparse.Namespace, folder: Path) -> list[Row]:
    with contextlib.ExitStack() as stack:
        found = _subjects(stack, folder, subjects.plain_provider(stack, folder), with_peers=options.peers)
        return [
            row
            for connections in options.connections
            for row in compare(found, Load(connections, options.seconds, None), options.rounds, folder)
        ]


def _streams(options: argparse.Namespace, folder: Path) -> list[Row]:
    with contextlib.ExitStack() as stack:
        provider = subjects.streaming_provider(stack, folder, CHUNKS)
        found = _subjects(stack, folder, provider, with_peers=options.peers)
        return compare(found, Load(STREAM_CONNECTIONS, options.seconds, CHUNKS + 1), options.rounds, folder)


def _subjects(stack: contextlib.ExitStack, folder: Path, provider: int, *, with_peers: bool) -> list[subjects.Subject]:
    found = [
        subjects.nginx(stack, folder, provider),
        subjects.upstack(stack, folder, provider, "required"),
        subjects.upstack(stack, folder, provider, "off"),
    ]
    return found + (peers.installed(stack, folder, provider) if with_peers else [])


def _print(rows: list[Row], facts: list[footprint.Fact]) -> None:
    if rows:
        print("\n| figure | subject | CPU us | x nginx | range | limit | a second | errors | what it was doing |")
        print("|---|---|---:|---:|---|---:|---:|---:|---|")
    for row in rows:
        spread = f"{row.ratio_least:.2f}-{row.ratio_most:.2f}"
        limit = "" if _limit(row) == math.inf else f"{_limit(row):.1f}"
        print(
            f"| {row.figure} | {row.subject} | {row.cpu_us:.1f} | {row.ratio:.2f} | {spread} | {limit} "
            f"| {row.per_second:.0f} | {row.errors} | {row.does} |"
        )
    if facts:
        print("\n| figure | value | limit |\n|---|---:|---:|")
    for fact in facts:
        print(f"| {fact.figure} | {fact.value:.2f} {fact.unit} | {fact.limit} {fact.unit} |")


if __name__ == "__main__":
    main()
