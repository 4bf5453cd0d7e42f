"""What the ledger is asked for: commits, a million receipts, requests beside retention. `make bench-ledger`."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
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
    found: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="upstack-bench-") as name:
        folder = Path(name)
        kind = filesystem(folder)
        if kind in {"tmpfs", "ramfs"}:
            sys.exit(f"{folder} lies in memory ({kind}), where a commit costs nothing: set TMPDIR to a disk")
        if options.only in {None, "commits"}:
            found += commits.measure(folder, options.commits, options.rounds)
        if options.only in {None, "million", "retention"}:
            for label, place in (("SQLite", str(folder / "million.db")), ("PostgreSQL", options.postgres)):
                if place is not None and (label == "SQLite" or options.only != "retention"):
                    found += _million(label, place, options)
    print("| figure | median | range | limit |\n|---|---|---|---|")
    for each in found:
        print(each.line())
    print(f"\n{platform.machine()}, Python {platform.python_version()}, ledger on {kind}")
    sys.exit(any(each.missed for each in found))


def _million(label: str, place: str, options: argparse.Namespace) -> list[Measured]:
    began = time.perf_counter()
    ids = million.fill(place, options.receipts)
    rate = len(ids) / (time.perf_counter() - began)
    found = [Measured(f"{label}: filled with {len(ids):,} receipts", rate, "a second", "once")]
    if options.only != "retention":
        found += million.measure(place, ids, label)
    if label == "SQLite" and options.only != "million":
        found += retention.measure(place, million.DAYS * 2 / 3, options.window, options.rounds)
    return found


if __name__ == "__main__":
    main()
