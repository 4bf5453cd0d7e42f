"""`upstack loop ...`: what it does."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from upstack.cli.options import config_path, keystore_of, ledger_of, look_here, read
from upstack.cli.output import console, counted, new_sheet, new_table, print_json, say, show, styled
from upstack.core.config import load_config
from upstack.core.errors import ConfigError, LedgerError
from upstack.core.store.standings import Summary
from upstack.core.types import STUDENT

if TYPE_CHECKING:
    from upstack.application.loop import Loop
    from upstack.application.proving.prover import Picture
    from upstack.application.simulation.result import Result

_PAUSE_S = 0.5  # between looks for something new
_MAX_LOSS, _CONFIDENCE, _THRESHOLD = 0.02, 0.95, 0.5


class Given(NamedTuple):
    """The command line."""

    traffic: Path
    reference: str
    start: Path | None
    labels: int
    max_loss: float | None
    confidence: float | None
    threshold: float | None
    task: str | None
    grader: str | None
    schema: Path | None
    encoder: Path | None
    prices: Path | None
    shadow_rate: float
    seed: int
    ledger: Path | None
    config: Path | None
    uncertified: bool


def simulate(given: Given, *, as_json: bool) -> None:
    """Run it and print it."""
    needs_the_extra()
    from upstack.application.simulation.run import Play, simulate  # noqa: PLC0415 - numpy is an extra's

    _check(given)
    config = load_config(config_path(given.config))
    play = Play(
        traffic=given.traffic,
        reference=given.reference,
        start=given.start,
        labels=given.labels,
        max_loss=_MAX_LOSS if given.max_loss is None else given.max_loss,
        confidence=_CONFIDENCE if given.confidence is None else given.confidence,
        threshold=(given.threshold or _THRESHOLD) if given.uncertified else None,
        seed=given.seed,
        task=given.task,
        grader=given.grader,
        schema=None if given.schema is None else read_schema(given.schema),
        encoder=given.encoder,
        prices=given.prices,
        shadow_rate=given.shadow_rate,
        ledger=given.ledger,
    )
    with _shown(quiet=as_json) as progress:
        result = simulate(play, config, progress)
    if as_json:
        print_json(msgspec.to_builtins(result))
    else:
        _print(result, given)


def run_rounds(task: str | None, ledger: str | None, path: Path | None, *, once: bool, as_json: bool) -> None:
    """Go round again and again, and say what was done."""
    needs_the_extra()
    from upstack.application.loop import loop_of  # noqa: PLC0415 - numpy is an extra's
    from upstack.cli.learnt import learning  # noqa: PLC0415
    from upstack.core.store.checks import newest  # noqa: PLC0415
    from upstack.core.store.proofs import proving  # noqa: PLC0415

    look_here()
    config = read(path)
    place, keystore = ledger_of(ledger, path), keystore_of(ledger, path)
    own = [name for name, row in config.tasks.items() if f"{STUDENT}/{name}" in row.candidates]
    if task is None and not own:
        raise ConfigError('no task learns: give one the candidate "student/TASK" and a strategy such as "confidence"')
    loops = {}
    for name in [task] if task is not None else own:
        wish, terms = learning(config, name)
        loops[name] = loop_of(place, wish, terms, config.loop, config.rights, keystore)
    seen: Any = None
    while True:
        with proving(place) as mine:
            if not mine:
                raise LedgerError("a gateway, or another loop, goes round with this ledger already")
            while once or newest(place) != seen:
                seen = newest(place)
                did = [_round(name, loop, as_json=as_json, once=once) for name, loop in loops.items()]
                if once or not any(did):
                    break
        if once:
            return
        time.sleep(_PAUSE_S)


def _round(task: str, loop: Loop, *, as_json: bool, once: bool) -> bool:
    """Go round a task once; whether anything was done."""
    picture = loop.turn(time.time())
    if as_json:
        if picture.did or once:
            print_json({"task": task, "did": picture.did, "serves": serves(picture), "why": picture.why})
    else:
        for each in picture.did:
            say(f"task {task}: {each}", style="bold")
        if once:
            say(f"task {task}: {serves(picture) or 'the reference'} answers{f'; {picture.why}' if picture.why else ''}")
    return bool(picture.did)


def serves(picture: Picture) -> str | None:
    """What answers, in words; None: the reference."""
    certificate = picture.certificate
    return None if certificate is None else msgspec.json.decode(certificate.summary, type=Summary).words


def needs_the_extra() -> None:
    """ConfigError where what learns is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("sklearn", "rensa", "numpy")):
        raise ConfigError("The loop learns: install Upstack with its extra, pip install 'upstack[learn]'")


def read_schema(path: Path) -> dict[str, Any]:
    """Read a JSON schema. ConfigError where there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is no JSON schema: {error}") from None


def _check(given: Given) -> None:
    if given.uncertified and (given.max_loss is not None or given.confidence is not None):
        raise ConfigError("--max-loss and --confidence are about what is proved; --uncertified proves nothing")
    if given.threshold is not None and not given.uncertified:
        raise ConfigError("--threshold is for --uncertified; otherwise the proof finds it")
    for name, value, most in (
        ("--max-loss", given.max_loss, 1.0),
        ("--confidence", given.confidence, 1.0),
        ("--threshold", given.threshold, 1.0),
    ):
        if value is not None and not 0 < value < most:
            raise ConfigError(f"{name} {value:g}: between 0 and 1")
    if not 0 <= given.shadow_rate <= 1:
        raise ConfigError(f"--shadow-rate {given.shadow_rate:g}: a chance, in 0 to 1")


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where a person looks."""
    if quiet:
        yield lambda _done, _of: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("requests", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _print(result: Result, given: Given) -> None:
    sheet = new_sheet()
    share = f"{result.reference_share:.1%} of {counted(result.requests, 'request')} asked {given.reference}"
    saved = 1 - result.cost_usd / result.reference_cost_usd if result.reference_cost_usd else 0.0
    sheet.add_row("Reference", styled(share, "bold"))
    sheet.add_row("Cost", f"${result.cost_usd:,.4f} in place of ${result.reference_cost_usd:,.4f}: {saved:.1%} saved")
    if result.accuracy is not None and result.reference_accuracy is not None:
        less = result.accuracy - result.reference_accuracy
        words = f"{result.accuracy:.2%}, the reference alone {result.reference_accuracy:.2%} ({less * 100:+.2f} points)"
        sheet.add_row("Accuracy", styled(words, "green" if less >= 0 else "yellow"))
    sheet.add_row("Labels", f"{result.labels_used:,} of {given.labels:,} that people may be asked for")
    sheet.add_row(
        "Students", f"{result.students:,} made, {result.promotions:,} promotions, {result.revocations:,} revoked"
    )
    sheet.add_row("Serves", result.serves or f"{given.reference}, the reference")
    if result.why:
        sheet.add_row("Certified", styled(f"nothing: {result.why}", "yellow"))
    show(sheet)
    columns = ("requests", "reference", "accuracy", "labels", "cost USD")
    table = new_table(*columns, right=columns)
    for point in result.curve[3::4]:
        accuracy = "" if point.accuracy is None else f"{point.accuracy:.1%}"
        share = f"{point.reference_share:.1%}"
        table.add_row(f"{point.requests:,}", share, accuracy, f"{point.labels_used:,}", f"{point.cost_usd:.4f}")
    show(table)
    if not result.certified:
        say("Nothing of this is certified: it shows what a plain threshold would have done.", style="yellow")
