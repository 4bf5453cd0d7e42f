"""What the closed loop reaches on recorded answers: `make bench-loop`. UPSTACK_DATA names the folder of the sets.

--seeds N          medians of so many (default 20)
--encoder FOLDER   a sentence encoder: figures with it are marked so
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.converters.banking77 import convert
from benchmarks.loop import duplicates
from upstack.application.simulation.result import Result
from upstack.application.simulation.run import Play, simulate
from upstack.core.config import Config
from upstack.foundation.students.encoder import Encoder

REFERENCE = "openai/gpt-4"
THRESHOLDS = (0.3, 0.4, 0.5, 0.6)
_LABELS = 200


class Row(msgspec.Struct, frozen=True):
    """One way to play the stream, over all seeds."""

    name: str
    share: float  # median of calls to the reference over requests
    excess: float  # median of accuracy less the reference's, paired
    worst: float
    best: float
    labels: float
    seconds: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--encoder", type=Path)
    wanted = parser.parse_args()
    data = os.environ.get("UPSTACK_DATA")
    if not data or not (Path(data) / "banking77").is_dir():
        print("skipped: UPSTACK_DATA names no folder with banking77 in it")
        return 0
    print(
        "Banking77's recorded answers carry no word on rights but the set's licence (MIT). This benchmark declares the"
    )
    print("exception of OpenAI's services agreement: a classifier that is not distributed (foundation/rights.toml).\n")
    with tempfile.TemporaryDirectory() as folder:
        for line in convert(Path(data), Path(folder), None):
            print(line)
        banking(Path(folder), range(wanted.seeds), wanted.encoder)
    print()
    duplicates.main()
    return 0


def banking(folder: Path, seeds: range, encoder: Path | None) -> None:
    """Play the stream of Banking77, uncertified and certified, with and without labels."""
    kind = "with an encoder" if encoder is not None else "linear"
    print(f"\nBanking77, {kind}, {len(seeds)} seeds: medians, and the extremes of accuracy less GPT-4's\n")
    print("| plan | share of calls | accuracy less GPT-4's | least, most | labels | s a run |")
    print("|---|---|---|---|---|---|")
    made = None if encoder is None else Encoder(encoder)
    usual = Play(folder / "banking77.jsonl.gz", REFERENCE, start=folder / "banking77-start.jsonl.gz")

    def play(**wish: object) -> Callable[[int], Result]:
        wanted = msgspec.structs.replace(usual, **wish)
        return lambda seed: simulate(
            msgspec.structs.replace(wanted, seed=seed), Config(), lambda *_: None, encoder=made
        )

    for threshold in THRESHOLDS:
        _show(_row(f"uncertified, sure by {threshold:g}", seeds, play(threshold=threshold)))
    for threshold in THRESHOLDS[:3]:
        _show(_row(f"the same, {_LABELS} labels, {threshold:g}", seeds, play(threshold=threshold, labels=_LABELS)))
    _show(_row(f"certified .05/.9, {_LABELS} labels", seeds, play(max_loss=0.05, confidence=0.9, labels=_LABELS)))


def _row(name: str, seeds: range, run: Callable[[int], Result]) -> Row:
    began = time.monotonic()
    results = [run(seed) for seed in seeds]
    excess = [(each.accuracy or 0.0) - (each.reference_accuracy or 0.0) for each in results]
    return Row(
        name,
        statistics.median(each.reference_share for each in results),
        statistics.median(excess),
        min(excess),
        max(excess),
        statistics.median(each.labels_used for each in results),
        (time.monotonic() - began) / len(seeds),
    )


def _show(row: Row) -> None:
    spread = f"{row.worst:+.4f}, {row.best:+.4f}"
    print(
        f"| {row.name} | {row.share:.3f} | {row.excess:+.4f} | {spread} | {row.labels:g} | {row.seconds:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
