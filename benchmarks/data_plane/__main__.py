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
    ours = [row for row in rows if _limit(row) < math.inf]
    above = [f"{row.figure}, {row.subject}: {row.ratio:.2f} x nginx" for row in ours if row.ratio > _limit(row)]
    above += [f"{row.figure}, {row.subject}: {row.errors} errors" for row in ours if row.errors]
    above += [f"{fact.figure}: {fact.value:.2f} {fact.unit}" for fact in facts if fact.value > fact.limit]
    if above:
        sys.exit("Above the limit: " + "; ".join(above))


def _limit(row: Row) -> float:
    return LIMITS.get(row.figure, {}).get(row.subject, math.inf)


def _requests(options: argparse.Namespace, folder: Path) -> list[Row]:
    loads = [Load(connections, options.seconds, None) for connections in options.connections]
    with contextlib.ExitStack() as stack:
        return _measure(stack, folder, subjects.plain_provider(stack, folder), loads, options)


def _streams(options: argparse.Namespace, folder: Path) -> list[Row]:
    loads = [Load(STREAM_CONNECTIONS, options.seconds, CHUNKS + 1)]
    with contextlib.ExitStack() as stack:
        return _measure(stack, folder, subjects.streaming_provider(stack, folder, CHUNKS), loads, options)


def _measure(
    stack: contextlib.ExitStack, folder: Path, provider: int, loads: list[Load], options: argparse.Namespace
) -> list[Row]:
    """Measure ours and nginx first, alone: some peers keep the machine busy even when nobody asks them."""
    nginx = subjects.nginx(stack, folder, provider)
    ours = [subjects.upstack(stack, folder, provider, receipts) for receipts in ("required", "off")]
    rows = [row for load in loads for row in compare([nginx, *ours], load, options.rounds, folder)]
    if options.peers and (others := peers.installed(stack, folder, provider)):
        rows += [row for load in loads for row in compare([nginx, *others], load, options.rounds, folder)[1:]]
    order = [row.figure for row in rows]
    return sorted(rows, key=lambda row: order.index(row.figure))


def _print(rows: list[Row], facts: list[footprint.Fact]) -> None:
    if rows:
        print("\n| figure | subject | CPU us | x nginx | range | limit | a second | errors | what it was doing |")
        print("|---|---|---:|---:|---|---:|---:|---:|---|")
    for row in rows:
        cpu = f"{row.cpu_us:.1f} ({row.cpu_least:.1f}-{row.cpu_most:.1f})"
        figures = f"{cpu} | {row.ratio:.2f} | {row.ratio_least:.2f}-{row.ratio_most:.2f}"
        limit = "" if _limit(row) == math.inf else f"{_limit(row):.1f}"
        rate = f"{row.per_second:.0f}"
        if row.errors:  # an error costs another amount than an answer
            figures, rate = "- | - | -", "-"
        print(f"| {row.figure} | {row.subject} | {figures} | {limit} | {rate} | {row.errors} | {row.does} |")
    if facts:
        print("\n| figure | value | limit |\n|---|---:|---:|")
    for fact in facts:
        print(f"| {fact.figure} | {fact.value:.2f} {fact.unit} | {fact.limit} {fact.unit} |")


if __name__ == "__main__":
    main()
