"""What certified routing saves on recorded answers, beside simple ways to do it. `make bench-arbitrage`."""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.arbitrage.baselines import Pairs, words
from benchmarks.arbitrage.sets import board
from benchmarks.converters import llmdrift, mmlu_pro, routellm, zeroeval
from upstack.core.traffic import read_traffic
from upstack.inference.backtest.board import Board
from upstack.inference.backtest.ranking import Ranking, ranking
from upstack.inference.backtest.run import backtest
from upstack.inference.backtest.split import folds_of, split
from upstack.inference.backtest.verdict import Verdict
from upstack.inference.backtest.wanted import Wanted
from upstack.inference.curve import Curve
from upstack.inference.drift import Watch, revoke_loss

_MIXTRAL, _GPT4 = "mistral/Mixtral-8x7B-Instruct-v0.1", "openai/gpt-4-1106-preview"
_PARTS = ("zeroeval", "curves", "unroutable", "drift")
_WATCHED = 0.05  # loss that is tolerated of the route that changed under its name


def main() -> None:
    """Convert what is there, measure, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=_PARTS)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--splits", type=int, default=200, help="of the pair that cannot be routed")
    options = parser.parse_args()
    if "UPSTACK_DATA" not in os.environ:
        sys.exit("Set UPSTACK_DATA to the folder of the recorded sets")
    print(f"{platform.machine()}, Python {platform.python_version()}\n")
    print("| figure | simple | ours |\n|---|---|---|")
    data = Path(os.environ["UPSTACK_DATA"])
    with tempfile.TemporaryDirectory(prefix="upstack-bench-") as name:
        for convert in (zeroeval, routellm, mmlu_pro, llmdrift):
            list(convert.convert(data, Path(name), None))
        for label, simple, ours in _measure(Path(name), options):
            print(f"| {label} | {simple} | {ours} |", flush=True)


def _measure(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    if options.only in {None, "zeroeval"}:
        yield from _zeroeval(folder, options.seeds)
    if options.only in {None, "curves"}:
        yield from _curves(folder)
    if options.only in {None, "unroutable"}:
        yield _unroutable(folder, options.splits)
    if options.only in {None, "drift"}:
        yield _drift(folder)


def _zeroeval(folder: Path, seeds: int) -> Iterator[tuple[str, str, str]]:
    rows = board(folder / "zeroeval.jsonl.gz", "anthropic/claude-3-5-sonnet-20241022")
    pairs = Pairs(rows)
    simple = [pairs.uncertified(split(rows.rows, 0.5, seed)) for seed in range(seeds)]
    ours = [_backtest(rows, Wanted(seed=seed, certified=False)) for seed in range(seeds)]
    yield (
        f"ZeroEval, uncertified, {seeds} seeds: median cost ratio (median excess)",
        _two(simple),
        _two([(each.cost_ratio, each.excess_loss) for each in ours]),
    )
    tried = [pairs.certified(split(rows.rows, 0.7, seed), 0.02, 0.1) for seed in range(seeds)]
    proved = [_backtest(rows, Wanted(max_loss=0.02, confidence=0.9, calibrate=0.7, seed=seed)) for seed in range(seeds)]
    ratios = [1.0 if each is None else each[0] for each in tried]
    yield (
        f"ZeroEval, certified .02 at .9: median cost ratio, seeds certified of {seeds}",
        f"{statistics.median(ratios):.3f}, {sum(each is not None for each in tried)}",
        f"{statistics.median(each.cost_ratio for each in proved):.3f}, {sum(each.certified for each in proved)}",
    )


def _backtest(rows: Board, wanted: Wanted) -> Verdict:
    return backtest(rows, wanted, split(rows.rows, wanted.calibrate, wanted.seed)).verdict


def _two(found: Sequence[tuple[float, float]]) -> str:
    ratio, excess = (statistics.median(each[at] for each in found) for at in range(2))
    return f"{ratio:.3f} ({excess:+.4f})"


def _curves(folder: Path) -> Iterator[tuple[str, str, str]]:
    for name, file, weak, strong, strategy in (
        ("RouteLLM MMLU, before the call", "routellm-mmlu", _MIXTRAL, _GPT4, "precall"),
        ("RouteLLM GSM8K, after the weak answer", "routellm-gsm8k", _MIXTRAL, _GPT4, "cascade"),
        (
            "MMLU-Pro, Gemini Flash to Pro",
            "mmlu-pro",
            "google/gemini-1.5-flash-002",
            "google/gemini-1.5-pro-002",
            "precall",
        ),
    ):
        rows = board(folder / f"{file}.jsonl.gz", strong, [weak])
        folds = folds_of(rows.rows)
        simple = words(rows.prompts, rows.losses[:, [1, 0]], folds)
        (ours,) = ranking(rows, strategy, folds)
        yield f"{name}: CPT50 / CPT80 / APGR", _curve(simple), _ranking(ours)


def _curve(found: Curve) -> str:
    return f"{100 * found.cpt(0.5):.1f} / {100 * found.cpt(0.8):.1f} / {found.apgr:.3f}"


def _ranking(found: Ranking) -> str:
    return f"{found.cpt50:.1f} / {found.cpt80:.1f} / {found.apgr:.3f}"


def _unroutable(folder: Path, splits: int) -> tuple[str, str, str]:
    rows = board(
        folder / "mmlu-pro.jsonl.gz",
        "meta-llama/Meta-Llama-3_1-70B-Instruct",
        ["meta-llama/Meta-Llama-3_1-8B-Instruct"],
    )
    found = [_backtest(rows, Wanted(max_loss=0.02, seed=seed)) for seed in range(splits)]
    over = sum(each.excess_loss > 0.02 for each in found) / splits
    certified = sum(each.certified for each in found) / splits
    return (
        f"MMLU-Pro, Llama 8B to 70B, .02 at .95, {splits} splits: served excess over .02",
        "",
        (f"{over:.1%} (certified in {certified:.1%})"),
    )


def _drift(folder: Path) -> tuple[str, str, str]:
    """One route, in March for 200 checks, then as it was in June."""
    rows = [row for row in read_traffic(folder / "llmdrift.jsonl.gz") if row.task == "llmdrift-prime"]
    before = [row.answers["openai/gpt-4-0314"].loss or 0.0 for row in rows]
    after = [row.answers["openai/gpt-4-0613"].loss or 0.0 for row in rows]
    delays, early = [], 0
    for seed in range(200):
        draw = random.Random(seed)
        watch = Watch(revoke_loss(_WATCHED), least=0.0)
        for loss in draw.sample(before, 200):
            watch.add(loss)
        early += watch.alarms(10_000)
        delay = 0
        for loss in draw.sample(after, 200):
            delay += 1
            watch.add(loss)
            if watch.alarms(10_000):
                break
        delays.append(delay)
    return (
        "LLMDrift PRIME, GPT-4 March to June, 200 seeds: checks until the alarm",
        "",
        (f"median {statistics.median(delays):g}, at most {max(delays)}; {early} alarms before the change"),
    )


if __name__ == "__main__":
    main()
