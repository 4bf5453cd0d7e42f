"""One look at a task's checks, and what follows from it: an attempt, a certificate, its end.

Whatever is decided is a function of what the ledger holds, and is written in one transaction: a worker that dies at any
moment loses nothing, and the next look comes to the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from upstack.application.proving.parts import decide
from upstack.application.proving.rows import CheckedAnswer, CheckedRow, to_row
from upstack.core.errors import EvidenceError
from upstack.core.store import proofs
from upstack.core.store.checks import Part, read_checks, read_parts
from upstack.core.store.ids import first_id
from upstack.core.store.rows import moment, to_seconds
from upstack.core.store.standings import REVOKED, Summary
from upstack.core.traffic import RecordedAnswer
from upstack.core.types import DAY_S, Terms
from upstack.inference import proof
from upstack.inference.backtest.board import Board
from upstack.inference.certify import share_of
from upstack.inference.graders.making import make_grader
from upstack.inference.proof import Standing, Watched
from upstack.inference.router import shadow_task
from upstack.inference.strategies.policy import Policy, from_bytes, to_bytes

PATIENCE_S = 1800.0  # that the other routes of a check may take to answer
GROWTH = 1.3  # of the checks, before plans are chosen anew
FRESH = 30  # checks of which no earlier attempt knew, without which a later one promotes nothing


class Picture(msgspec.Struct, frozen=True):
    """How a task stands."""

    task: str
    terms: Terms
    fit: int = 0  # checks to learn from
    evidence: int = 0
    repeats: int = 0  # of what was evidence already
    waiting: int = 0  # checks whose routes are being asked
    submission: proofs.Submission | None = None
    fresh: int = 0
    standings: tuple[Standing, ...] = ()
    certificate: proofs.Certificate | None = None
    watched: Watched | None = None
    unlabelled: tuple[str, ...] = ()  # checks of which a label would tell something
    why: str | None = None  # nothing is certified
    did: tuple[str, ...] = ()  # what this look changed


class Prover:
    """Looks at the tasks of one ledger. Blocks."""

    def __init__(self, place: str, keystore: str | None = None, *, acts: bool = True) -> None:
        """Not `acts`: it looks, and changes nothing."""
        self._place, self._keystore, self._acts = place, keystore, acts

    def look(self, task: str, terms: Terms, now: float) -> Picture:
        """Look at a task at `now` (Unix seconds), and do what follows. LedgerError where the ledger fails."""
        past = proofs.history(self._place, task)
        did: list[str] = []
        over = _is_over(past, terms, now)
        if over is not None:
            past = self._end(task, past, now, over)
            did.append(over)
        since = _since(past)
        picture = Picture(task, terms, certificate=past.in_force, submission=past.open, did=tuple(did))
        try:
            return self._look(picture, past, since, now)
        except EvidenceError as error:
            return msgspec.structs.replace(picture, why=str(error))

    def _look(self, picture: Picture, past: proofs.History, since: str, now: float) -> Picture:
        terms, task = picture.terms, picture.task
        checks = read_checks(self._place, task, shadow_task(task), since, self._keystore)
        rows = [row for row in (to_row(check, terms, now, PATIENCE_S) for check in checks) if row is not None]
        parts = self._parts(task, rows)
        fit = [row for row in rows if parts[row.id].part == "fit" and _is_whole(row)]
        evidence = [row for row in rows if parts[row.id].part == "evidence"]
        picture = msgspec.structs.replace(
            picture,
            fit=len(fit),
            evidence=len(evidence),
            repeats=sum(parts[row.id].part == "repeat" for row in rows),
            waiting=sum(row.waits for row in rows),
        )
        picture = self._watch(picture, rows, now)
        if picture.did and picture.certificate is None and picture.watched is not None:
            return picture  # revoked: the next look begins anew
        picture = self._submit(picture, past, fit, evidence, parts, since, now)
        if picture.submission is None:
            few = f"{len(fit)} checks to choose plans by, of {proof.FEWEST} that are needed"
            return msgspec.structs.replace(picture, why=None if picture.certificate else few)
        return self._prove(picture, evidence, now)

    def _parts(self, task: str, rows: Sequence[CheckedRow]) -> dict[str, Part]:
        known = read_parts(self._place, task)
        new = decide(rows, known)
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
        waits = [
            row.waits or (at in undecided and now < (row.time or 0.0) + terms.maturity_days * DAY_S)
            for at, row in enumerate(later)
        ]
        watched = proof.watch(board, policy, terms, waits)
        picture = msgspec.structs.replace(picture, watched=watched)
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
        grown = going_on is not None and picture.certificate is None and count >= GROWTH * going_on.rows
        if len(fit) < proof.FEWEST or not (stale or grown):
            return msgspec.structs.replace(picture, submission=None if stale else going_on)
        number = len(past.submissions) + 1
        delta = share_of(1.0 - terms.confidence, number)
        numbers: dict[str, int] = {}
        cluster = [numbers.setdefault(parts[row.id].cluster, len(numbers)) for row in fit]
        plans = to_bytes(proof.plans_of(_board(fit, terms), range(len(fit)), cluster, terms, delta))
        digest = hashlib.sha256(plans).hexdigest()
        if not stale and going_on is not None and digest == going_on.digest:
            return picture
        newest = max((row.id for row in (*fit, *evidence)), default="")
        submission = proofs.Submission(
            picture.task, number, moment(now), since, newest, count, claim, plans, digest, delta
        )
        if self._acts:
            proofs.submit(self._place, submission)
        did = f"attempt {number}: {len(from_bytes(plans))} plans to be proved, each at error probability {delta:.2g}"
        return msgspec.structs.replace(picture, submission=submission, did=(*picture.did, did))

    def _prove(self, picture: Picture, evidence: Sequence[CheckedRow], now: float) -> Picture:
        """Put the plans of the attempt to the proof, and promote the furthest that is proved."""
        terms, submission, certificate = picture.terms, picture.submission, picture.certificate
        assert submission is not None  # noqa: S101 - the caller looked
        board = _board(evidence, terms)
        plans = from_bytes(submission.plans)
        standings = proof.standings(board, plans, terms, submission.delta)
        fresh = sum(row.id > submission.seen for row in evidence) if submission.number > 1 else len(evidence)
        undecided = {at for policy in plans for at in proof.disagreements(board, policy)}
        unlabelled = tuple(evidence[at].id for at in sorted(undecided))
        picture = msgspec.structs.replace(picture, standings=tuple(standings), fresh=fresh, unlabelled=unlabelled)
        best = proof.proved(standings)
        floor = _floor(picture, evidence)
        if best is None or floor is not None or not _is_better(certificate, submission, best, standings[best]):
            why = None if certificate is not None else floor if best is not None else _why_not(standings)
            return msgspec.structs.replace(picture, why=why)
        issued = _certificate(picture, best, standings[best], now)
        if self._acts:
            proofs.issue(self._place, issued)
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
        [terms.reference, terms.arms, terms.strategy, terms.grader, terms.fields, terms.max_loss, terms.confidence],
        order="deterministic",
    )


def _is_over(past: proofs.History, terms: Terms, now: float) -> str | None:
    """Why the certificate in force ends before anything is looked at."""
    certificate = past.in_force
    if certificate is None:
        return None
    if now >= to_seconds(certificate.expires_at):
        return "expired"
    said = msgspec.json.decode(certificate.summary, type=Summary)
    arms = dict(terms.arms)
    for route, version in said.arms:
        if arms.get(route) != version:
            return f"changed: {route} is not what was proved"
    for attempt in past.submissions:
        if attempt.number == certificate.submission:
            reference, _, _, grader, fields, _, _ = msgspec.json.decode(attempt.terms)
            if (tuple(reference), grader, fields) != (terms.reference, terms.grader, dict(terms.fields)):
                return "changed: the reference or the grader"
    if (said.max_loss, said.confidence) != (terms.max_loss, terms.confidence):
        return "changed: max_loss or confidence"
    return None


def _since(past: proofs.History) -> str:
    """The first id that may be evidence: an alarm ends what was before, an expiry what was before its certificate."""
    since = 0.0
    for certificate in past.certificates:
        if (certificate.ended_why or "").startswith(REVOKED):
            since = max(since, to_seconds(certificate.ended_at or certificate.issued_at))
        elif certificate.ended_why == "expired":
            since = max(since, to_seconds(certificate.issued_at))
    return first_id(since) if since else ""


def _is_whole(row: CheckedRow) -> bool:
    return all(row.is_known(route) for route in row.answers)


def _board(rows: Sequence[CheckedRow], terms: Terms) -> Board:
    routes = [terms.reference[0], *(route for route, _ in terms.arms)]
    return Board(rows, routes, make_grader(terms.grader, terms.fields), _cost)


def _cost(_: str, answer: RecordedAnswer) -> float:
    return answer.cost_usd if isinstance(answer, CheckedAnswer) else 0.0


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


def _is_better(
    certificate: proofs.Certificate | None, submission: proofs.Submission, place: int, standing: Standing
) -> bool:
    if certificate is None:
        return True
    if certificate.submission == submission.number:
        return place > certificate.place
    return standing.cost_ratio < msgspec.json.decode(certificate.summary, type=Summary).cost_ratio


def _why_not(standings: Sequence[Standing]) -> str:
    if not standings:
        return "no candidate promises to be cheaper and good enough"
    first = standings[0]
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
