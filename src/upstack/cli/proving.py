"""`upstack tasks show` and `upstack certify`: what is proved of a task's plans, by the checks in the ledger."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from upstack.application.gateway.setup import state_of
from upstack.cli.options import keystore_of, ledger_of, look_here, read
from upstack.cli.output import Name, counted, new_sheet, new_table, print_json, say, show, styled
from upstack.core.config import Config
from upstack.core.errors import ConfigError, LedgerError
from upstack.core.types import STUDENT, Terms

if TYPE_CHECKING:
    from upstack.application.proving.prover import Picture
    from upstack.core.store.standings import Summary
    from upstack.inference.proof import Standing

_MEMBERS = ("checks", "excess", "low", "high", "cost_ratio", "escalated", "proved", "checks_left")


def look(
    name: str, ledger: str | None, config: Path | None, replay: Path | None, *, acts: bool
) -> tuple[Picture, str, str | None]:
    """Look at a task: how it stands, and where the ledger and its keystore are. ConfigError, LedgerError."""
    look_here()
    terms = terms_of(name, config, replay)
    from upstack.application.proving.prover import Prover  # noqa: PLC0415 - numpy is an extra's
    from upstack.core.store.proofs import proving  # noqa: PLC0415

    place, keystore = ledger_of(ledger, config), keystore_of(ledger, config)
    settings = read(config)
    if f"{STUDENT}/{name}" in settings.tasks[name].candidates:
        return _round(name, place, settings, keystore, acts=acts), place, keystore
    if not acts:
        return Prover(place, keystore, acts=False).look(name, terms, time.time()), place, keystore
    deadline = time.monotonic() + 30
    while True:
        with proving(place) as mine:
            if mine:
                return Prover(place, keystore).look(name, terms, time.time()), place, keystore
        if time.monotonic() > deadline:
            raise LedgerError("another process has been proving by this ledger for 30 seconds; try again")
        time.sleep(0.1)


def _round(name: str, place: str, config: Config, keystore: str | None, *, acts: bool) -> Picture:
    """The same of a task that learns: its students are among what is looked at."""
    from upstack.application.loop import loop_of  # noqa: PLC0415 - numpy is an extra's
    from upstack.cli.learnt import learning  # noqa: PLC0415
    from upstack.core.store.proofs import proving  # noqa: PLC0415

    wish, terms = learning(config, name)
    loop = loop_of(place, wish, terms, config.loop, config.rights, keystore, acts=acts)
    with proving(place) if acts else contextlib.nullcontext(enter_result=True) as mine:
        if not mine:
            raise LedgerError("a gateway, or another loop, goes round with this ledger already")
        return loop.turn(time.time())


def terms_of(name: str, config: Path | None, replay: Path | None) -> Terms:
    """What is to be proved of a task. ConfigError where there is nothing."""
    state = state_of(read(config), 1, _replay(replay))
    task = state.tasks.get(name)
    if task is None:
        known = ", ".join(sorted(state.tasks)) or "none"
        raise ConfigError(f'There is no task "{name}". Configured: {known}')
    if task.terms is None:
        raise ConfigError(
            f'Task {name} proves nothing: its strategy is "{task.strategy}". With "auto", "single", "agree", "cascade",'
            ' "confidence" or "precall" a cheaper plan serves once it is proved'
        )
    return task.terms


def show_task(
    name: str, ledger: str | None, config: Path | None, replay: Path | None, *, acts: bool, as_json: bool
) -> None:
    """Print how a task stands."""
    picture, _, _ = look(name, ledger, config, replay, acts=acts)
    if as_json:
        print_json(_json(picture))
        return
    for did in picture.did:
        say(f"{did[:1].upper()}{did[1:]}.", style="bold")
    sheet = new_sheet()
    for what, words, style in _lines(picture):
        sheet.add_row(what, styled(words, style))
    show(sheet)
    if picture.standings:
        _show_plans(picture)


def _lines(picture: Picture) -> list[tuple[str, str, str]]:
    terms, attempt = picture.terms, picture.submission
    said = summary_of(picture)
    lines = [("Task", picture.task, "bold")]
    if said is None:
        lines.append(("Serves", f"{terms.reference[0]}, the reference", "bold"))
        lines.append(("Certified", f"nothing: {picture.why or 'not yet'}", "yellow"))
    else:
        certificate = picture.certificate
        assert certificate is not None  # noqa: S101 - the summary is its
        lines.append(("Serves", said.words.partition(";")[0], "bold green"))
        lines.append(("Certified", f"{certificate.issued_at[:16]}Z until {certificate.expires_at[:16]}Z", "green"))
        evidence = f"{counted(said.checks, 'check')}, {said.fresh:,} fresh and {said.reused:,} reused"
        lines.append(("On", f"{evidence}; excess loss {said.excess:+.4f}, in {said.low:+.3f} to {said.high:+.3f}", ""))
    claim = f"at most {terms.max_loss:g} worse than {terms.reference[0]}, with confidence {terms.confidence:g}"
    lines.append(("To prove", f"{claim}; {terms.grader}", ""))
    parts = f"{picture.fit:,} to choose plans by, {picture.evidence:,} as evidence"
    more = "".join(
        f", {count:,} {what}"
        for count, what in ((picture.repeats, "nearly the same"), (picture.waiting, "being asked"))
        if count
    )
    lines.append(("Checks", parts + more, ""))
    if attempt is not None:
        lines.append(("Attempt", f"{attempt.number}, at an error probability of {attempt.delta:.3g}", ""))
    if picture.watched is not None:
        watched = picture.watched
        words = f"{counted(watched.checks, 'check')} since, {watched.excess:+.4f} on average"
        lines.append(("Watched", f"{words}; alarm at {watched.evidence:,.1f} of {watched.alarm:,.0f}", ""))
    if picture.unlabelled:
        count = counted(len(picture.unlabelled), "disagreement")
        lines.append(
            ("Labels", f"{count} nobody has judged, each taken for a loss: upstack tasks labels {picture.task}", "")
        )
    forecast = _forecast(picture)
    if forecast:
        lines.append(("Next", forecast, ""))
    return lines


def _forecast(picture: Picture) -> str | None:
    """What it takes until the next plan in the order is proved."""
    waiting = next((each for each in picture.standings if not each.proved), None)
    if waiting is None:
        return None
    if waiting.checks_left is None:
        return f"{waiting.policy.words()}: not in sight with checks like these"
    words = f"{waiting.policy.words()}: about {waiting.checks_left:,} more checks like these"
    if picture.evidence_a_day:
        words += f", {waiting.checks_left / picture.evidence_a_day:,.1f} days at the present rate"
    if picture.usd_a_check is not None and picture.evidence:
        asked = waiting.checks_left * (picture.evidence + picture.fit + picture.repeats) / picture.evidence
        words += f", ${asked * picture.usd_a_check:,.4g}"
    return words


def _show_plans(picture: Picture) -> None:
    table = new_table(
        "Plan, in the order of the proof", "Cost", "Excess loss", "Checks", "State", right=("Cost", "Checks")
    )
    table.add_row("the reference alone", "1.000", "0", "", "always may")
    for place, each in enumerate(picture.standings):
        table.add_row(
            Name(each.policy.words()),
            f"{each.cost_ratio:.3f}",
            f"{each.excess:+.4f}\n{each.low:+.3f} to {each.high:+.3f}",
            f"{each.checks:,}",
            _state(picture, place, each),
        )
    show(table)


def _state(picture: Picture, place: int, each: Standing) -> str:
    certificate, attempt = picture.certificate, picture.submission
    here = certificate is not None and attempt is not None and certificate.submission == attempt.number
    if here and certificate is not None and certificate.place == place:
        return "serves"
    if each.proved:
        return "proved"
    return "not in sight" if each.checks_left is None else f"{each.checks_left:,} more"


def summary_of(picture: Picture) -> Summary | None:
    """What the certificate in force says of itself."""
    from upstack.core.store.standings import Summary  # noqa: PLC0415

    if picture.certificate is None:
        return None
    return msgspec.json.decode(picture.certificate.summary, type=Summary)


def _json(picture: Picture) -> dict[str, Any]:
    said, certificate, attempt = summary_of(picture), picture.certificate, picture.submission
    return {
        "task": picture.task,
        "terms": msgspec.to_builtins(picture.terms),
        "serves": picture.terms.reference[0] if said is None else said.words,
        "certificate": None
        if certificate is None or said is None
        else {
            "id": certificate.id,
            "issued_at": certificate.issued_at,
            "expires_at": certificate.expires_at,
            **msgspec.to_builtins(said),
        },
        "why": picture.why,
        "checks": {
            "fit": picture.fit,
            "evidence": picture.evidence,
            "fresh": picture.fresh,
            "repeats": picture.repeats,
            "waiting": picture.waiting,
            "unlabelled": list(picture.unlabelled),
            "evidence_a_day": picture.evidence_a_day,
            "usd_a_check": picture.usd_a_check,
        },
        "attempt": None
        if attempt is None
        else {"number": attempt.number, "delta": attempt.delta, "plans": attempt.digest},
        "watched": None if picture.watched is None else msgspec.to_builtins(picture.watched),
        "plans": [
            {
                "plan": each.policy.words(),
                "strategy": each.policy.kind,
                "routes": list(each.policy.strategy.arms),
                "threshold": each.policy.threshold,
                "state": _state(picture, place, each),
                "unjudged": len(each.unjudged),
                **{name: getattr(each, name) for name in _MEMBERS},
            }
            for place, each in enumerate(picture.standings)
        ],
        "did": list(picture.did),
    }


def _replay(path: Path | None) -> Any:
    if path is None:
        return None
    from upstack.foundation.backends.replay import ReplayBackend  # noqa: PLC0415 - only `--replay` needs it

    return ReplayBackend(path)
