"""What the ledger is asked for: commits, a million receipts, requests beside retention. `make bench-ledger`."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.data_plane.procs import filesystem
from benchmarks.ledger import commits, million, retention
from benchmarks.ledger.rows import Measured

_PARTS = ("commits", "million", "retention")


def main() -> None:
    """Parse, run, print; exit with 1 where a figure misses its limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=_PARTS)
    parser.add_argument("--receipts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commits", type=int, default=400, help="in a round")
    parser.add_argument("--window", type=float, default=15.0, help="seconds of requests with and without retention")
    parser.add_argument("--postgres", metavar="URL", help="an empty ledger in PostgreSQL, to be filled as well")
    options = parser.parse_args()
    missed = False
    with tempfile.TemporaryDirectory(prefix="upstack-bench-") as name:
        folder = Path(name)
        kind = filesystem(folder)
        if kind in {"tmpfs", "ramfs"}:
            sys.exit(f"{folder} lies in memory ({kind}), where a commit costs nothing: set TMPDIR to a disk")
        print(f"{platform.machine()}, Python {platform.python_version()}, ledger on {kind}\n")
        print("| figure | median | range | limit |\n|---|---|---|---|")
        for each in _measure(folder, options):
            print(each.line(), flush=True)
            missed = missed or each.missed
    sys.exit(missed)


def _measure(folder: Path, options: argparse.Namespace) -> Iterator[Measured]:
    if options.only in {None, "commits"}:
        yield from commits.measure(folder, options.commits, options.rounds)
    if options.only in {None, "million", "retention"}:
        for label, place in (("SQLite", str(folder / "million.db")), ("PostgreSQL", options.postgres)):
            if place is not None and (label == "SQLite" or options.only != "retention"):
                yield from _million(label, place, options)


def _million(label: str, place: str, options: argparse.Namespace) -> Iterator[Measured]:
    began = time.perf_counter()
    ids = million.fill(place, options.receipts)
    rate = len(ids) / (time.perf_counter() - began)
    yield Measured(f"{label}: filled with {len(ids):,} receipts", rate, "a second", "once")
    if options.only != "retention":
        yield from million.measure(place, ids, label)
    if label == "SQLite" and options.only != "million":
        yield from retention.measure(place, million.DAYS, million.DAYS * 2 / 3, options.window, options.rounds)


if __name__ == "__main__":
    main()
