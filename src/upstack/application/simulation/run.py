"""A simulation from end to end: from files to what came of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from upstack.application.data.recorded import prices_beside, prices_of
from upstack.application.data.rights import Judge
from upstack.application.learning import Wish
from upstack.application.loop import Loop
from upstack.application.proving.pupils import Pupils
from upstack.application.simulation.player import Simulation
from upstack.application.simulation.result import Result, result_of
from upstack.application.simulation.stream import VERSION, Stream, shuffled
from upstack.core.config import Config, PriceConfig
from upstack.core.errors import ConfigError, EvidenceError
from upstack.core.traffic import TrafficRow, read_traffic
from upstack.core.types import Price, Terms
from upstack.foundation.prices import load_prices_toml
from upstack.foundation.students.encoder import Encoder
from upstack.inference.distill.lessons import fields_of
from upstack.inference.drift import revoke_loss
from upstack.inference.graders.making import guess_grader, make_grader

_GROWTH = 1.3  # of what there is to learn, for another student that must be proved
_GROWTH_UNPROVED = 1.05
_GUESSED_BY = 400  # rows
_NEVER_DAYS = 3650.0


class Play(msgspec.Struct, frozen=True):
    """What is to be simulated."""

    traffic: Path
    reference: str
    start: Path | None = None
    labels: int = 0
    max_loss: float = 0.02
    confidence: float = 0.95
    threshold: float | None = None  # of confidence; None: what serves is proved
    seed: int = 0
    task: str | None = None
    grader: str | None = None
    schema: Mapping[str, Any] | None = None
    encoder: Path | None = None
    prices: Path | None = None
    shadow_rate: float = 0.05
    usd_per_hour: float = 0.1  # of the machine that a student runs on
    ledger: Path | None = None  # None: one that is thrown away


def simulate(
    play: Play, config: Config, progress: Callable[[int, int], None], encoder: Encoder | None = None
) -> Result:
    """Simulate, under prices and rights of a configuration. ConfigError, EvidenceError, LedgerError."""
    fields_of(play.schema)  # what is wrong with it is said before anything else is done
    rows = _rows(play)
    stream = _stream(play, rows, config.prices)
    name = play.grader or guess_grader(
        ([row.answers[play.reference].content or ""], [row.answers[play.reference].loss], row.truth)
        for row in stream.rows[:_GUESSED_BY]
    )
    grader = make_grader(name)
    with tempfile.TemporaryDirectory(prefix="upstack-") as folder:
        place = str(play.ledger or Path(folder) / "simulation.db")
        encoder = Encoder(play.encoder) if play.encoder is not None else encoder
        pupils = Pupils(place, stream.usd_per_second, lambda digest: _same(encoder, digest))
        growth = _GROWTH if play.threshold is None else _GROWTH_UNPROVED
        wish = Wish(stream.task, (play.reference,), play.schema, growth=growth)
        loop = Loop(place, wish, _terms(play, name), pupils, Judge(place, config.rights), encoder)
        player = Simulation(place, stream, loop, pupils)
        player.run(lambda done: progress(done, len(stream.rows)))
        return result_of(place, stream, grader, player.serves(), player.why())


def _rows(play: Play) -> list[TrafficRow]:
    rows = [row for row in read_traffic(play.traffic) if play.task is None or row.task == play.task]
    tasks = sorted({row.task for row in rows})
    if not tasks:
        raise ConfigError(f"{play.traffic} holds no rows{f' of task {play.task}' if play.task else ''}")
    if len(tasks) > 1:
        raise ConfigError(f"{play.traffic} holds the tasks {', '.join(tasks[:8])}: say which one with --task")
    return rows


def _stream(play: Play, rows: list[TrafficRow], table: Mapping[str, PriceConfig]) -> Stream:
    task = rows[0].task
    start = [] if play.start is None else [row for row in read_traffic(play.start) if row.truth is not None]
    file = play.prices or prices_beside(play.traffic)
    prices = prices_of([play.reference], {**table, **({} if file is None else load_prices_toml(file))})
    return Stream(
        task=task,
        rows=shuffled(rows, play.reference, play.seed),
        start=tuple(start),
        reference=play.reference,
        price=_known(prices[play.reference], play.reference),
        labels=play.labels,
        shadow_rate=play.shadow_rate,
        seed=play.seed,
        threshold=play.threshold,
        usd_per_second=play.usd_per_hour / 3600,
    )


def _known(price: Price | None, name: str) -> Price:
    if price is None:
        raise ConfigError(
            f'"{name}" has no known price: give it one with --prices FILE, a TOML of [prices."{name}"] with input and'
            " output in USD per million tokens"
        )
    return price


def _terms(play: Play, grader: str) -> Terms:
    return Terms(
        reference=(play.reference, VERSION),
        arms=(),
        strategy="confidence",
        grader=grader,
        fields={},
        max_loss=play.max_loss,
        confidence=play.confidence,
        min_checks=50,
        min_hours=0.0,  # recorded requests do not say how fast they came
        revoke_loss=revoke_loss(play.max_loss),
        false_alarm_checks=10_000,
        expires_days=_NEVER_DAYS,
        maturity_days=0.0,
        labelled=play.labels > 0,
        aim=0.0,
    )


def _same(encoder: Encoder | None, digest: str) -> Encoder:
    if encoder is None or encoder.digest != digest:
        raise EvidenceError(f"the ledger has a student that stands on the encoder {digest}: name it with --encoder")
    return encoder
