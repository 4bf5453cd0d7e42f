"""One look at a task's checks, and what follows from it: an attempt, a certificate, its end.

Whatever is decided is a function of what the ledger holds, and is written in one transaction: a worker that dies at any
moment loses nothing, and the next look comes to the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from upstack.application.proving.parts import Parts
from upstack.application.proving.pupils import Pupils
from upstack.application.proving.rows import CheckedRow, cost_of, to_row
from upstack.core.errors import EvidenceError
from upstack.core.store import proofs
from upstack.core.store.checks import Check, Part, read_checks, read_parts
from upstack.core.store.ids import first_id
from upstack.core.store.rows import moment, to_seconds
from upstack.core.store.standings import REVOKED, Summary
from upstack.core.traffic import prompt_of
from upstack.core.types import DAY_S, Terms
from upstack.inference import proof
from upstack.inference.backtest.board import Board
from upstack.inference.certify import share_of
from upstack.inference.graders.judge import judged
from upstack.inference.graders.making import make_grader
from upstack.inference.graders.tools import ToolWise
from upstack.inference.proof import Standing, Watched
from upstack.inference.router import shadow_task
from upstack.inference.strategies.policy import Policy, from_bytes, to_bytes

_PER_USD = 1e12
PATIENCE_S = 1800.0  # that the other routes of a check may take to answer
GROWTH = 1.3  # of the checks, before plans are chosen anew
EXPIRED = "expired"
_RENEWAL = 0.8  # of a certificate's life, from when on it is earned anew
_PRIOR, _DOUBT = 0.1, 4  # excess that a disagreement is taken to have, as if so many had been labelled
_PAYBACK = 500  # requests in which more checks have to be paid by what they save
_MARGIN = 0.98  # of the cost of the plan in service: another has to be that much cheaper
FRESH = 30  # checks of which no earlier attempt knew, without which a later one promotes nothing


class Picture(msgspec.Struct, frozen=True):
    """How a task stands."""

    task: str
    terms: Terms
    fit: int = 0  # checks to learn from
    evidence: int = 0
    repeats: int = 0  # of what was evidence already
    waiting: int = 0  # checks whose routes are being asked
    evidence_a_day: float | None = None  # at the rate of the checks there are
    usd_a_check: float | None = None  # what asking beside answers costs
    submission: proofs.Submission | None = None
    fresh: int = 0
    standings: tuple[Standing, ...] = ()
    certificate: proofs.Certificate | None = None
    watched: Watched | None = None
    unlabelled: tuple[str, ...] = ()  # checks of which a label would tell something
    needed: tuple[str, ...] = ()  # those of them that the first plan without a proof waits for, in request order
    eager: bool = False  # more checks than usual would soon pay: a much cheaper plan is in sight
    watching: tuple[str, ...] = ()  # checks since the promotion of which a label would tell something
    why: str | None = None  # nothing is certified
    did: tuple[str, ...] = ()  # what this look changed


class Prover:
    """Looks at the tasks of one ledger. Blocks."""

    def __init__(
        self, place: str, keystore: str | None = None, *, acts: bool = True, pupils: Pupils | None = None
    ) -> None:
        """Not `acts`: it looks, and changes nothing. `pupils`: the students of the ledger."""
        self._decided: dict[str, Parts] = {}
        self._pupils = pupils or Pupils(place)
        self._place, self._keystore, self._acts = place, keystore, acts
        self._hopeless: dict[tuple[str, bytes, str], int] = {}  # of what, since when: of how many checks no plan came

    def look(self, task: str, terms: Terms, now: float) -> Picture:
        """Look at a task at `now` (Unix seconds), and do what follows. LedgerError where the ledger fails."""
        past = proofs.history(self._place, task)
        did: list[str] = []
        over = _is_over(past, terms, now)
        if over is not None:
            past = self._end(task, past, now, over)
            did.append(over)
        since = _since(past, now)
        picture = Picture(task, terms, certificate=past.in_force, submission=past.open, did=tuple(did))
        try:
            return self._look(picture, past, since, now)
        except EvidenceError as error:
            return msgspec.structs.replace(picture, why=str(error))

    def _look(self, picture: Picture, past: proofs.History, since: str, now: float) -> Picture:
        terms, task = picture.terms, picture.task
        checks = read_checks(self._place, task, shadow_task(task), since, self._keystore)
        found = [to_row(check, terms, now, PATIENCE_S, self._pupils) for check in checks]
        rows = [row for row in found if row is not None]
        parts = self._parts(task, rows)
        fit = [row for row in rows if parts[row.id].part == "fit" and _is_whole(row)]
        evidence = [row for row in rows if parts[row.id].part == "evidence"]
        picture = msgspec.structs.replace(
            picture,
            fit=len(fit),
            evidence=len(evidence),
            repeats=sum(parts[row.id].part == "repeat" for row in rows),
            waiting=sum(row.waits for row in rows),
            evidence_a_day=_a_day(evidence),
            usd_a_check=_beside_usd(checks),
        )
        picture = self._watch(picture, rows, now)
        if picture.did and picture.certificate is None and picture.watched is not None:
            return picture  # revoked: the next look begins anew
        picture = self._submit(picture, past, fit, evidence, parts, since, now)
        if picture.submission is None:
            few = f"{len(fit)} checks to choose plans by, of {proof.FEWEST} that are needed"
            why = few if len(fit) < proof.FEWEST else "no candidate promises to be cheaper and good enough"
            unjudged = _disputed(fit, terms)
            return msgspec.structs.replace(picture, why=None if picture.certificate else why, unlabelled=unjudged)
        return self._prove(picture, evidence, _unread(past, picture.submission, now), now)

    def _parts(self, task: str, rows: Sequence[CheckedRow]) -> dict[str, Part]:
        known = read_parts(self._place, task)
        known_ids = {each.id for each in known}
        if all(row.id in known_ids for row in rows):
            return {each.id: each for each in known}
        new = self._decided.setdefault(task, Parts()).decide([(row.id, prompt_of(row), True) for row in rows], known)
        if self._acts:
            proofs.keep_parts(self._place, task, new)
        return {each.id: each for each in (*known, *new)}

    def _watch(self, picture: Picture, rows: Sequence[CheckedRow], now: float) -> Picture:
        """Revoke the plan in service where it has got worse."""
        certificate, terms = picture.certificate, picture.terms
        if certificate is None:
            return picture
        (policy,) = from_bytes(certificate.plan)
        asked = {terms.reference[0], *policy.strategy.arms}
        issued = first_id(to_seconds(certificate.issued_at))
        later = [row for row in rows if row.id >= issued]
        later = [row for row in later if row.waits or all(row.is_known(route) for route in asked)]  # others are lost
        board = _board(later, terms)
        undecided = set(proof.disagreements(board, policy))
        grace = max(terms.maturity_days * DAY_S, 0.0 if terms.judge is None else PATIENCE_S)
        waits = [row.waits or (at in undecided and now < (row.time or 0.0) + grace) for at, row in enumerate(later)]
        watched = proof.watch(board, policy, terms, waits)
        watching = tuple(later[at].id for at in sorted(undecided))
        picture = msgspec.structs.replace(picture, watched=watched, watching=watching)
        if not watched.alarmed:
            return picture
        why = (
            f"{REVOKED}: {policy.words()} lost {watched.excess:+.3f} more than the reference over {watched.checks}"
            f" checks, above {terms.revoke_loss:g}"
        )
        self._end(picture.task, None, now, why)
        return msgspec.structs.replace(picture, certificate=None, submission=None, why=why, did=(*picture.did, why))

    def _submit(
        self,
        picture: Picture,
        past: proofs.History,
        fit: Sequence[CheckedRow],
        evidence: Sequence[CheckedRow],
        parts: dict[str, Part],
        since: str,
        now: float,
    ) -> Picture:
        """Choose plans by the fit rows where it is time, and write them down before any evidence is read."""
        terms, going_on = picture.terms, picture.submission
        claim = _claim(terms)
        count = len(fit) + len(evidence)
        stale = going_on is None or going_on.terms != claim
        certificate = picture.certificate
        grown = going_on is not None and certificate is None and count >= GROWTH * going_on.rows and not terms.labelled
        due = going_on is not None and _is_due(certificate, now) and going_on.since != since
        if len(fit) < proof.FEWEST or not (stale or grown or due):
            return msgspec.structs.replace(picture, submission=None if stale else going_on)
        tried = (picture.task, claim, since)
        if count < GROWTH * self._hopeless.get(tried, 0):
            return msgspec.structs.replace(picture, submission=None if stale else going_on)
        number = len(past.submissions) + 1
        delta = share_of(1.0 - terms.confidence, number)
        numbers: dict[str, int] = {}
        cluster = [numbers.setdefault(parts[row.id].cluster, len(numbers)) for row in fit]
        found = proof.plans_of(_board(fit, terms, evidence=False), range(len(fit)), cluster, terms, delta)
        plans = to_bytes(found)
        digest = hashlib.sha256(plans).hexdigest()
        if not found or (not (stale or due) and going_on is not None and digest == going_on.digest):
            self._hopeless[tried] = count
            return msgspec.structs.replace(picture, submission=None if stale else going_on)
        submission = proofs.Submission(picture.task, number, moment(now), since, count, claim, plans, digest, delta)
        if self._acts:
            proofs.submit(self._place, submission)
        several = "1 plan" if len(found) == 1 else f"{len(found)} plans"
        did = f"attempt {number}: {several} to be proved, at an error probability of {delta:.2g}"
        return msgspec.structs.replace(picture, submission=submission, did=(*picture.did, did))

    def _prove(self, picture: Picture, evidence: Sequence[CheckedRow], unread: str, now: float) -> Picture:
        """Put the plans of the attempt to the proof, and promote the cheapest that is proved.

        Checks from the id `unread` on are fresh.
        """
        terms, submission, certificate = picture.terms, picture.submission, picture.certificate
        assert submission is not None  # noqa: S101 - the caller looked
        board = _board(evidence, terms)
        plans = from_bytes(submission.plans)
        standings = proof.standings(board, plans, terms, submission.delta)
        fresh = sum(row.id >= unread for row in evidence)
        undecided = {at for each in standings for at in each.unjudged}
        unlabelled = tuple(evidence[at].id for at in sorted(undecided))
        picture = msgspec.structs.replace(
            picture,
            standings=tuple(standings),
            fresh=fresh,
            unlabelled=unlabelled,
            eager=_pays(standings, certificate, terms.aim, FRESH - fresh if submission.number > 1 else 0),
            needed=tuple(evidence[at].id for at in _needed(standings, _cost_now(certificate))),
        )
        if self._acts and picture.eager != bool(submission.eager):
            proofs.hasten(self._place, picture.task, submission.number, int(picture.eager))
        best = proof.best(standings, terms.aim)
        floor = _floor(picture, evidence)
        renewing = _is_due(certificate, now)
        better = best is not None and (renewing or _is_better(certificate, submission, best, standings[best]))
        if best is None or floor is not None or not better:
            why = None if certificate is not None else floor if best is not None else _why_not(standings)
            return msgspec.structs.replace(picture, why=why)
        issued = _certificate(picture, best, standings[best], now)
        if self._acts:
            proofs.issue(self._place, issued, proofs.RENEWED if renewing else "replaced")
        did = f"certified: {standings[best].policy.words()}"
        return msgspec.structs.replace(picture, certificate=issued, why=None, did=(*picture.did, did))

    def _end(self, task: str, past: proofs.History | None, now: float, why: str) -> proofs.History:
        if self._acts:
            proofs.end(self._place, task, moment(now), why)
        if past is None:
            return proofs.History((), ())
        ended: dict[str, Any] = {"ended_at": moment(now), "ended_why": why}

        def all_ended(each: Any) -> Any:
            return each if each.ended_at is not None else msgspec.structs.replace(each, **ended)

        return proofs.History(tuple(map(all_ended, past.submissions)), tuple(map(all_ended, past.certificates)))


def _claim(terms: Terms) -> bytes:
    """What an attempt is about: other terms are another attempt."""
    return msgspec.json.encode(
        [terms.reference, terms.arms, terms.strategy, terms.grader, terms.fields, terms.max_loss, terms.confidence]
        + ([terms.judge, terms.label_rate] if terms.judge is not None else []),
        order="deterministic",
    )


def _is_over(past: proofs.History, terms: Terms, now: float) -> str | None:
    """Why the certificate in force ends before anything is looked at."""
    certificate = past.in_force
    if certificate is None:
        return None
    if now >= to_seconds(certificate.expires_at):
        return EXPIRED
    said = msgspec.json.decode(certificate.summary, type=Summary)
    arms = dict(terms.arms)
    for route, version in said.arms:
        if arms.get(route) != version:
            return f"changed: {route} is not what was proved"
    judged_by = _judged_by(_claim(terms))
    if any(each.number == certificate.submission and _judged_by(each.terms) != judged_by for each in past.submissions):
        return "changed: the reference, the grader or the judge"
    if (said.max_loss, said.confidence) != (terms.max_loss, terms.confidence):
        return "changed: max_loss or confidence"
    return None


def _judged_by(claim: bytes) -> list[Any]:
    """Of what an attempt is about: against what, and how, plans are judged."""
    reference, _, _, grader, fields, _, _, *judge = msgspec.json.decode(claim)
    return [reference, grader, fields, judge]


def _since(past: proofs.History, now: float) -> str:
    """The first id that may be evidence: none before the last alarm, or before a certificate that is to be renewed.

    A certificate that expires is earned anew by the checks of its own life.
    """
    since = 0.0
    for certificate in past.certificates:
        if (certificate.ended_why or "").startswith(REVOKED):
            since = max(since, to_seconds(certificate.ended_at or certificate.issued_at))
        elif certificate.ended_why in (EXPIRED, proofs.RENEWED) or _is_due(certificate, now):
            since = max(since, to_seconds(certificate.issued_at))
    return first_id(since) if since else ""


def _is_due(certificate: proofs.Certificate | None, now: float) -> bool:
    """Whether a certificate in force is to be renewed, before it expires."""
    if certificate is None or certificate.ended_at is not None:
        return False
    issued, expires = to_seconds(certificate.issued_at), to_seconds(certificate.expires_at)
    return now >= issued + _RENEWAL * (expires - issued)


def _a_day(rows: Sequence[CheckedRow]) -> float | None:
    """How many there are in a day; None where that cannot be said yet."""
    span = (rows[-1].time or 0.0) - (rows[0].time or 0.0) if rows else 0.0
    return (len(rows) - 1) * DAY_S / span if span > 0 else None


def _beside_usd(checks: Sequence[Check]) -> float | None:
    """What a check costs beside its answer, on average."""
    paid = [each.cost_picodollars or 0 for check in checks for each in check.beside]
    return sum(paid) / _PER_USD / len(checks) if checks else None


def _disputed(rows: Sequence[CheckedRow], terms: Terms) -> tuple[str, ...]:
    """Rows in which routes say different things, and nobody has said what is right."""
    if not rows:
        return ()
    board = _board(rows, terms)
    return tuple(row.id for at, row in enumerate(rows) if not board.labelled[at] and board.losses[at].any())


def _unread(past: proofs.History, submission: proofs.Submission, now: float) -> str:
    """The first id that no attempt before this one can have read."""
    ended = [each.ended_at or moment(now) for each in past.submissions if each.number < submission.number]
    return first_id(to_seconds(max(ended))) if ended else ""


def _is_whole(row: CheckedRow) -> bool:
    return all(row.is_known(route) for route in row.answers)


def _board(rows: Sequence[CheckedRow], terms: Terms, *, evidence: bool = True) -> Board:
    routes = [terms.reference[0], *(route for route, _ in terms.arms)]
    board = Board(rows, routes, ToolWise(make_grader(terms.grader, terms.fields)), cost_of)
    if terms.judge is not None:
        for at, row in enumerate(rows):
            _put_right(board, at, row, terms, evidence=evidence)
    elif terms.labelled and not evidence:
        _guess(board)
    return board


def _guess(board: Board) -> None:
    """Take disagreements that nobody has labelled for what the labelled ones are on average."""
    differ = board.classes[:, 1:] != board.classes[:, :1]
    excess = board.losses[:, 1:] - board.losses[:, :1]
    known = differ & board.labelled[:, None]
    usual = (float(excess[known].sum()) + _PRIOR * _DOUBT) / (int(known.sum()) + _DOUBT)
    rows, columns = (differ & ~board.labelled[:, None]).nonzero()
    board.losses[rows, columns + 1] = usual


def _put_right(board: Board, at: int, row: CheckedRow, terms: Terms, *, evidence: bool) -> None:
    """Judge a row's disagreements by the judge, and by the human where the coin fell.

    Of evidence no other label counts, and what is not known is a full loss. To choose plans by, the best word will do.
    """
    losses, labelled = board.losses[at].copy(), bool(board.labelled[at])
    full = proof.most_of(terms)
    board.losses[at, 0] = 0.0
    board.labelled[at] = True
    for column, route in enumerate(board.routes[1:], 1):
        same = board.classes[at, column] == board.classes[at, 0] and row.is_known(route)
        said, label = row.verdicts.get(route), float(losses[column] - losses[0]) if labelled else None
        if same:
            excess = 0.0
        elif not evidence:
            excess = max(0.0, label if label is not None else 1.0 if said is None else said)
        elif said is None or (row.coin and label is None):
            excess = full
            board.labelled[at] = False
        else:
            excess = judged(said, terms.label_rate, label if row.coin else None)
        board.losses[at, column] = excess


def _floor(picture: Picture, evidence: Sequence[CheckedRow]) -> str | None:
    """What keeps a plan that is proved from being promoted, whatever the numbers say."""
    terms, submission = picture.terms, picture.submission
    if len(evidence) < terms.min_checks:
        return f"proved, and waits for {terms.min_checks} checks; there are {len(evidence)}"
    hours = ((evidence[-1].time or 0.0) - (evidence[0].time or 0.0)) / 3600
    if hours < terms.min_hours:
        return f"proved, and waits until checks span {terms.min_hours:g} hours; they span {hours:.1f}"
    if submission is not None and submission.number > 1 and picture.fresh < FRESH:
        return f"proved, and waits for {FRESH} checks that no earlier attempt knew; there are {picture.fresh}"
    return None


def _cost_now(certificate: proofs.Certificate | None) -> float:
    """What serving costs now, relative to the reference."""
    return 1.0 if certificate is None else msgspec.json.decode(certificate.summary, type=Summary).cost_ratio


def _needed(standings: Sequence[Standing], now: float) -> tuple[int, ...]:
    """Rows that have to be labelled before a plan that is cheaper than what serves now can be proved."""
    for each in standings:
        if not each.proved and each.cost_ratio < _MARGIN * now:
            return each.unjudged
    return ()


def _pays(standings: Sequence[Standing], certificate: proofs.Certificate | None, aim: float, fresh: int) -> bool:
    """Whether making all requests checks until a cheaper plan is proved is soon paid by what that will save."""
    now = _cost_now(certificate)
    last = next((at for at, each in enumerate(standings) if each.checks_left is None), len(standings))
    for at in range(last):
        if standings[at].excess > aim:
            continue
        left = max(fresh, *(each.checks_left or 0 for each in standings[: at + 1]))
        saved = now - standings[at].cost_ratio
        if saved > 0 and left > 0 and left * (1.0 - now) / saved <= _PAYBACK:
            return True
    return False


def _is_better(
    certificate: proofs.Certificate | None, submission: proofs.Submission, place: int, standing: Standing
) -> bool:
    if certificate is None:
        return True
    said = msgspec.json.decode(certificate.summary, type=Summary)
    same = certificate.submission == submission.number and certificate.place == place
    return not same and standing.cost_ratio < _MARGIN * said.cost_ratio


def _why_not(standings: Sequence[Standing]) -> str:
    first = next((each for each in standings if not each.proved), None)
    if first is None or standings[0].proved:
        return f"what is proved after {standings[0].checks} checks is no cheaper than the reference"
    if first.checks_left is None:
        return f"after {first.checks} checks no plan is proved, and none is in sight"
    return f"after {first.checks} checks no plan is proved; about {first.checks_left} more for the first"


def _certificate(picture: Picture, place: int, standing: Standing, now: float) -> proofs.Certificate:
    terms, submission = picture.terms, picture.submission
    assert submission is not None  # noqa: S101 - it is what was proved
    versions = dict(terms.arms)
    policy = standing.policy
    words = (
        f"{policy.words()}; certified after {standing.checks} checks: at most {terms.max_loss:g} worse than"
        f" {terms.reference[0]}, with confidence {terms.confidence:g}"
    )
    summary = Summary(
        strategy=policy.kind,
        arms=tuple((arm, versions[arm]) for arm in policy.strategy.arms),
        threshold=policy.threshold,
        words=words,
        max_loss=terms.max_loss,
        confidence=terms.confidence,
        delta=submission.delta,
        checks=standing.checks,
        fresh=picture.fresh,
        reused=standing.checks - picture.fresh,
        excess=standing.excess,
        low=standing.low,
        high=standing.high,
        cost_ratio=standing.cost_ratio,
    )
    plan = to_bytes([policy])
    return proofs.Certificate(
        id=f"cert_{picture.task}_{submission.number}_{place}_{hashlib.sha256(plan).hexdigest()[:8]}_{int(now)}",
        task=picture.task,
        submission=submission.number,
        place=place,
        issued_at=moment(now),
        expires_at=moment(now + terms.expires_days * DAY_S),
        plan=plan,
        summary=msgspec.json.encode(summary).decode(),
    )


def policy_of(certificate: proofs.Certificate) -> Policy:
    """The plan that a certificate is of."""
    return from_bytes(certificate.plan)[0]
