"""`upstack backtest`: what any policy would have cost and lost on recorded traffic."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from upstack.application.backtest import Asked, Period, Report, run, run_ledger
from upstack.cli.options import config_path, keystore_of, ledger_of, look_here
from upstack.cli.output import Name, counted, new_grid, new_table, print_json, printable, say, show
from upstack.cli.proving import terms_of
from upstack.core.config import NAME, Config, load_config
from upstack.core.errors import ConfigError
from upstack.core.store.ids import first_id
from upstack.core.types import DAY_S
from upstack.inference.backtest.again import AGAIN
from upstack.inference.backtest.wanted import STRATEGIES, Wanted

if TYPE_CHECKING:
    from upstack.inference.backtest.verdict import Tried, Verdict

_SHOWN = 10  # plans
_NEVER = 10**9  # checks


class Given(NamedTuple):
    """The command line."""

    traffic: Path | None
    reference: str | None
    candidates: str | None
    strategy: str
    grader: str | None
    task: str | None
    since: str | None
    ledger: str | None
    max_loss: float | None
    confidence: float | None
    prices: Path | None
    calibrate: float
    seed: int
    curve: bool
    plot: Path | None
    uncertified: bool
    config: Path | None


def backtest(given: Given, *, as_json: bool) -> None:
    """Run it and print it."""
    if importlib.util.find_spec("sklearn") is None or importlib.util.find_spec("rensa") is None:
        raise ConfigError(
            "A backtest learns from the rows: install Upstack with its extra, pip install 'upstack[learn]'"
        )
    config = load_config(config_path(given.config))
    look_here()
    asked, wanted = _asked(given, config)
    if given.traffic is None:
        report = run_ledger(asked, wanted, _period(given))
    elif given.since is not None or given.ledger is not None:
        raise ConfigError("--since and --ledger are about the ledger; a file is backtested whole")
    else:
        report = run(asked, wanted, config.prices, (lambda _: None) if as_json else _progress)
    if given.plot is not None:
        _plot(report, given.plot, wanted)
    if as_json:
        print_json(_json(report))
    else:
        _print(report, asked, wanted, given)


def _period(given: Given) -> Period:
    """Which checks are looked at. ConfigError."""
    if given.task is None:
        raise ConfigError(
            "Name recorded traffic, or with --task NAME the task whose checks in the ledger are looked at"
        )
    if given.prices is not None:
        raise ConfigError("--prices is about a file; what a ledger's checks cost was booked when they were made")
    terms = terms_of(given.task, given.config, None)
    now = time.time()
    return Period(
        ledger_of(given.ledger, given.config),
        keystore_of(given.ledger, given.config),
        terms,
        first_id(_moment(given.since, now)),
        now,
    )


def _moment(since: str | None, now: float) -> float:
    """When --since is, in Unix seconds; ConfigError."""
    if since is None:
        return 0.0
    found = re.fullmatch(r"(\d{1,5})([dh])", since)
    if found is not None:
        return max(0.0, now - int(found[1]) * (DAY_S if found[2] == "d" else 3600))
    try:
        return datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise ConfigError(f'--since "{since}": expected 7d, 12h, or a day such as 2026-01-31') from None


def _asked(given: Given, config: Config) -> tuple[Asked, Wanted]:
    """Complete what the command line says by what the task of the configuration does."""
    task = config.tasks.get(given.task) if given.task is not None else None
    reference = given.reference or (task.reference if task else None)
    if reference is None:
        raise ConfigError("Name the route that losses are measured against: --reference PROVIDER/MODEL")
    if given.strategy not in STRATEGIES:
        raise ConfigError(f'--strategy "{given.strategy}": expected one of {", ".join(STRATEGIES)}')
    if given.curve and given.strategy in ("single", "agree"):
        raise ConfigError(f"--curve ranks by a score, which {given.strategy} has not: precall, cascade or auto")
    candidates = tuple(part.strip() for part in (given.candidates or "").split(",") if part.strip())
    if not candidates and task is not None:
        candidates = task.candidates
    max_loss = given.max_loss if given.max_loss is not None else task.max_loss if task else 0.02
    confidence = given.confidence if given.confidence is not None else task.confidence if task else 0.95
    for name, value, low, high in (
        ("--max-loss", max_loss, 0.0, 1.0),
        ("--confidence", confidence, 0.0, 1.0),
        ("--calibrate", given.calibrate, 0.0, 1.0),
    ):
        if not low < value < high and not (name == "--max-loss" and given.uncertified and value == 0.0):
            raise ConfigError(f"{name} {value:g}: lies between {low:g} and {high:g}")
    return (
        Asked(
            given.traffic or Path(),
            reference,
            candidates,
            given.grader or (task.grader if task else None),
            dict(task.fields) if task else None,
            given.prices,
            given.task,
            given.curve,
        ),
        Wanted(given.strategy, max_loss, confidence, given.calibrate, given.seed, not given.uncertified),
    )


def _progress(text: str) -> None:
    say(f"{text} ...", style="dim", stderr=True)


def _plot(report: Report, path: Path, wanted: Wanted) -> None:
    from upstack.inference.backtest.plot import draw  # noqa: PLC0415

    several = len(report.tasks) > 1
    for name, verdict in report.tasks.items():
        place = path.with_name(f"{path.stem}-{name}{path.suffix}") if several else path
        try:
            place.write_text(draw(verdict, f"{name}, against {verdict.policy.routes[-1]}", wanted.max_loss), "utf-8")
        except OSError as error:
            raise ConfigError(f"--plot {place}: {error.strerror}") from None


def _json(report: Report) -> dict[str, object]:
    total: dict[str, object] = msgspec.to_builtins(report.total)
    tasks: dict[str, dict[str, object]] = msgspec.to_builtins(report.tasks)
    for name, curves in report.curves.items():
        tasks[name]["curves"] = msgspec.to_builtins(curves)
    curves = [each for ranked in report.curves.values() for each in ranked]
    if curves:
        total["curves"] = msgspec.to_builtins(curves)
        total["curve"] = msgspec.to_builtins(max(curves, key=lambda each: each.strategy == "cascade"))
    return {**total, "tasks": tasks}


def _print(report: Report, asked: Asked, wanted: Wanted, given: Given) -> None:
    for name, verdict in report.tasks.items():
        _print_task(name, verdict, asked, wanted)
        if asked.curve and name not in report.curves:
            say("No curve: no candidate is worse than the reference, so there is no gap to recover.")
        for each in report.curves.get(name, ()):
            say(
                f"Out of fold, {each.strategy} {each.candidate}: CPT50 {each.cpt50:.1f}%, CPT80 {each.cpt80:.1f}%,"
                f" APGR {each.apgr:.3f}"
            )
    if len(report.tasks) > 1:
        _print_task(f"all {len(report.tasks)} tasks", report.total, asked, wanted)
    if given.plot is not None:
        say(f"Drawn: {given.plot}")


def _print_task(name: str, verdict: Verdict, asked: Asked, wanted: Wanted) -> None:
    say(f"\n{name}", style="bold")
    if verdict.n_test:
        _print_policy(verdict, asked)
    if verdict.tried:
        _print_tried(verdict)
    if verdict.certified:
        say(
            f"Certified: its loss exceeds the reference's by at most {wanted.max_loss:g}, with confidence"
            f" {wanted.confidence:g}, on {counted(verdict.n_evidence, 'check')}.",
            style="bold green",
        )
        if verdict.tried:  # a sum of tasks has none
            say("To have it proved by your own traffic, and served from then on:")
            for line in _configuration(name, verdict, wanted):
                print(f"    {printable(line)}")
    elif wanted.certified:
        say(f"No certified saving. {verdict.why}.", style="bold yellow")
        if verdict.way_on:
            say(f"The way on: {verdict.way_on}.")
    else:
        say("Nothing is certified: this plan seemed no worse on the rows it was chosen by.", style="yellow")


def _configuration(name: str, verdict: Verdict, wanted: Wanted) -> list[str]:
    """What a configuration says of a task so that such a plan may come to serve it."""
    *arms, reference = verdict.policy.routes
    task = name if re.fullmatch(NAME, name) else "mine"
    again = {arm: _named_again(arm) for arm in arms if arm.endswith(AGAIN)}  # the same model by another name
    lines = []
    for arm, own in again.items():
        lines += [f"[routes.{json.dumps(own)}]", f"model = {json.dumps(arm.removesuffix(AGAIN))}"]
    return [
        *lines,
        f"[tasks.{task}]",
        f"reference = {json.dumps(reference)}",
        f"candidates = {json.dumps([again.get(arm, arm) for arm in arms])}",
        f"strategy = {json.dumps(wanted.strategy)}",
        f"grader = {json.dumps(verdict.grader)}",
        f"max_loss = {wanted.max_loss:g}",
        f"confidence = {wanted.confidence:g}",
    ]


def _named_again(arm: str) -> str:
    model = arm.removesuffix(AGAIN).partition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model).lstrip("._-") + "-again"


def _print_policy(verdict: Verdict, asked: Asked) -> None:
    low, high = verdict.excess_loss_interval
    policy = verdict.policy
    grid = new_grid(2)
    grid.add_row("plan", f"{policy.strategy}: {', then '.join(policy.routes)}")
    grid.add_row(
        "cost", f"{verdict.cost_ratio:.3f} of {asked.reference}'s; with calibration {verdict.cost_ratio_all_in:.3f}"
    )
    grid.add_row("loss", f"{_loss(policy.loss)}, the reference's {_loss(verdict.reference.loss)}")
    grid.add_row("excess", f"{verdict.excess_loss:+.4f}, in {low:+.4f} to {high:+.4f}")
    grid.add_row("rows", f"{verdict.n_fit:,} to learn from, {verdict.n_evidence:,} evidence, {verdict.n_test:,} test")
    if verdict.grader is not None:
        grid.add_row("grader", f"{verdict.grader}; {verdict.labelled_share:.0%} of the rows have a label")
    if verdict.assumed is not None:
        assumed = verdict.assumed
        grid.add_row(
            "assumed",
            f"{counted(assumed.requests, 'request')} that {'was' if assumed.requests == 1 else 'were'} no check:"
            f" ${assumed.policy_usd:,.4g}, the reference ${assumed.reference_usd:,.4g}",
        )
    if verdict.left_out or verdict.left_out_candidates:
        gone = [f"{counted(verdict.left_out, 'row')} without all answers", *verdict.left_out_candidates]
        grid.add_row("left out", ", ".join(gone))
    show(grid)


def _print_tried(verdict: Verdict) -> None:
    table = new_table(
        "plan", "routes", "cost", "excess", "at most", "judged on", "", right=("cost", "excess", "at most")
    )
    for each in _furthest(verdict.tried)[:_SHOWN]:
        state = "proved" if each.proved else f"{each.checks_left:,} more" if each.checks_left else ""
        table.add_row(
            each.strategy,
            Name(*each.routes[:-1]),
            f"{each.cost_ratio:.3f}",
            f"{each.excess_loss:+.4f}",
            f"{each.high:+.4f}",
            each.judged_on,
            state,
        )
    table.add_row("do nothing", Name(verdict.tried[0].routes[-1]), "1.000", "+0.0000", "+0.0000", "", "")
    show(table)


def _furthest(tried: Sequence[Tried]) -> list[Tried]:
    """Of the thresholds of one plan the last up to which all are proved, else the one that is nearest to it."""
    plans: dict[tuple[object, ...], list[Tried]] = {}
    for each in tried:
        plans.setdefault((each.strategy, each.routes, each.judged_on), []).append(each)
    found = []
    for several in plans.values():
        proved = list(takewhile(lambda each: each.proved, several))
        found.append(proved[-1] if proved else min(several, key=lambda each: each.checks_left or _NEVER))
    return found


def _loss(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
