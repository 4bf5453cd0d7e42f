"""Certificates from checks in a ledger: what is proved, what ends it, and what no mishap changes."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from upstack.core.store import proofs
from upstack.core.store.ids import ReceiptIds
from upstack.core.store.rows import to_outcome_row, to_row
from upstack.core.store.sqlite import SqliteLedger
from upstack.core.store.standings import standings
from upstack.core.types import Attempt, Receipt, Terms
from upstack.testing.receipts import make_outcome, make_receipt

pytest.importorskip("sklearn", reason="proving plans needs the extra `learn`")

from upstack.application.proving.prover import Picture, Prover

NOW = 1_800_000_000.0
HOUR = 3600.0
TERMS = Terms(
    reference=("ref", "r1"),
    arms=(("a", "a1"), ("b", "b1")),
    strategy="single",
    grader="exact",
    fields={},
    max_loss=0.1,
    confidence=0.9,
    min_checks=50,
    min_hours=0.0,
    revoke_loss=0.14,
    false_alarm_checks=1000,
    expires_days=30.0,
    maturity_days=0.0,
)
PRICES = {"ref": 1000, "a": 100, "b": 200}
WORDS = (
    "red",
    "oak",
    "sea",
    "ink",
    "fog",
    "elm",
    "ash",
    "bay",
    "sun",
    "ice",
    "jar",
    "kit",
    "lamp",
    "moss",
    "nest",
    "owl",
)


class Checks:
    """Writes checks into a ledger of its own, as a gateway would have."""

    def __init__(self, path: Path, seed: int = 0) -> None:
        self.path = path
        self.now = NOW
        self._ledger = SqliteLedger(str(path))
        self._ids = ReceiptIds()
        self._rng = random.Random(seed)
        self.ids: list[str] = []

    def add(self, said: dict[str, str | None], served: str = "ref", text: str | None = None) -> str:
        """Add one: what each route said; None: it failed. A route that is left out was not asked yet."""
        self.now += 60.0
        rng = self._rng
        text = text or " ".join(rng.choices(WORDS, k=10)) + f" {rng.random()}"
        check = self._receipt(served, said[served], text, coin=1.0)
        beside = [
            self._receipt(route, what, text, check_of=check.id) for route, what in said.items() if route != served
        ]
        self.record(*((each, (each.request, each.answer, None, False)) for each in (check, *beside)))
        self.ids.append(check.id)
        return check.id

    def many(self, count: int, **wrong: float) -> None:
        """Add so many; of routes the share of answers that differ from the reference's."""
        for _ in range(count):
            right = self._rng.choice(WORDS)
            said: dict[str, str | None] = {"ref": right}
            for route in ("a", "b"):
                said[route] = f"not {right}" if self._rng.random() < wrong.get(route, 0.0) else right
            self.add(said)

    def tell(self, check: str, right: str | None) -> None:
        """Say what would have been right; None takes that back."""
        receipt = make_receipt(id=check)
        what: dict[str, Any] = {"demonstration": None if right is None else right.encode(), "withdrawn": right is None}
        self.now += 1.0
        outcome = make_outcome(receipt, at=self.now, value=None, **what)
        content = (None, outcome.demonstration, None, False)
        row = (*to_outcome_row(outcome), *content)
        assert self._ledger.record(([], [], [], [row])) == []

    def verdict(self, check: str, arm: str, said: tuple[str, str], coin: float | None) -> None:
        """Have a judge say something of an arm, both ways round."""
        for place, what in zip(("first", "second"), said, strict=True):
            receipt = self._receipt("ref", what, "x", check_of=check)
            receipt = replace(receipt, strategy="judge", model=f"judge/{place}/{arm}", coin=coin, route="judge")
            self.record((receipt, (receipt.request, receipt.answer, None, False)))

    def judge(self, receipt: str, value: float) -> None:
        """Say how good an answer is."""
        self.now += 1.0
        outcome = make_outcome(make_receipt(id=receipt), at=self.now, value=value)
        assert self._ledger.record(([], [], [], [(*to_outcome_row(outcome), None, None, None, False)])) == []

    def record(self, *rows: tuple[Receipt, Any]) -> None:
        """Write receipts."""
        assert self._ledger.record(([to_row(row) for row, _ in rows], [kept for _, kept in rows], [], [])) == []

    def look(self, terms: Terms = TERMS, **options: Any) -> Picture:
        """Look, a second after the last one."""
        self.now += 1.0
        return Prover(str(self.path), **options).look("t", terms, self.now)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the ledger itself."""
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(query).fetchall()

    def _receipt(
        self, route: str, said: str | None, text: str, *, coin: float | None = None, check_of: str | None = None
    ) -> Receipt:
        failure = "bad_status" if said is None else None
        cost = PRICES[route]
        attempt = Attempt(route, route, "m", f"{route[0]}1", 0, 200, failure, 0.0, 0.1, 0.2, None, "p", cost)
        request = {"model": "task/t", "messages": [{"role": "user", "content": text}]}
        answer = {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
        return make_receipt(
            id=self._ids(self.now),
            created_at=self.now,
            state="answered" if said is not None else "failed",
            task="t" if check_of is None else "t/shadow",
            route=route if said is not None else None,
            attempts=(attempt,),
            cost_picodollars=cost,
            request=json.dumps(request).encode(),
            answer=json.dumps(answer).encode() if said is not None else None,
            coin=coin,
            check_of=check_of,
            episode=None,
            subject=None,
        )


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    """A ledger to be filled."""
    return Checks(tmp_path / "upstack.db")


def test_the_cheapest_that_is_good_enough_is_certified(checks: Checks) -> None:
    """With what it stands on."""
    checks.many(100)
    picture = checks.look()
    assert picture.certificate is not None
    assert [each.policy.words() for each in picture.standings if each.proved][-1] == "a"
    (issued,) = checks.rows("SELECT summary FROM certificates")
    summary = json.loads(issued[0])
    assert (summary["arms"], summary["cost_ratio"], summary["reused"]) == ([["a", "a1"]], pytest.approx(0.1), 0)
    proved = standings(str(checks.path), checks.now)["t"]
    assert (proved.strategy, proved.arms) == ("single", (("a", "a1"),))


def test_a_certificate_is_earned_anew_before_it_expires(checks: Checks) -> None:
    """By the checks of its own life, of which the last were not read before; else the reference answers again."""
    checks.many(100)
    first = checks.look().certificate
    assert first is not None
    checks.many(80)
    assert checks.look().certificate == first
    checks.now += 25 * 86_400
    assert checks.look().did == ("attempt 2: 1 plan to be proved, at an error probability of 0.017",)
    checks.many(60)
    renewed = checks.look()
    assert renewed.did == ("certified: a",)
    assert renewed.certificate is not None
    assert renewed.evidence < 120  # none from before the first certificate
    assert checks.rows("SELECT ended_why FROM certificates ORDER BY issued_at") == [("renewed",), (None,)]
    assert checks.look().evidence == renewed.evidence
    checks.now += 31 * 86_400
    assert standings(str(checks.path), checks.now)["t"].certificate is None
    assert checks.look().did[0] == "expired"
    assert not standings(str(checks.path), checks.now)["t"].alarmed


def test_what_is_not_good_enough_is_not(checks: Checks) -> None:
    """And the way on is said."""
    checks.many(300, a=0.3, b=0.3)
    picture = checks.look()
    assert picture.certificate is None
    assert picture.why is not None
    assert "no candidate promises" in picture.why


def test_plans_are_written_down_before_evidence_is_read(checks: Checks) -> None:
    """A look that ends between the two goes on with the same plans."""
    checks.many(100)
    first = checks.look(replace(TERMS, min_checks=1000))
    assert first.certificate is None
    assert first.why == f"proved, and waits for 1000 checks; there are {first.evidence}"
    ((plans, digest),) = checks.rows("SELECT plans, digest FROM submissions")
    checks.many(10)
    assert checks.look().certificate is not None
    assert checks.rows("SELECT plans, digest FROM submissions") == [(plans, digest)]


def test_a_plan_that_gets_worse_is_revoked(checks: Checks) -> None:
    """Then only what comes after it counts, and every request is a check."""
    checks.many(100)
    assert checks.look().certificate is not None
    checks.many(10)
    assert checks.look().watched is not None
    for _ in range(40):
        checks.add({"ref": "yes", "a": "no", "b": "yes"}, served="a")
        picture = checks.look()
        if picture.did:
            break
    assert picture.did[0].startswith("revoked: a lost +")
    assert picture.certificate is None
    assert standings(str(checks.path), checks.now)["t"].alarmed
    after = checks.look()
    assert (after.fit, after.evidence) == (0, 0)
    checks.many(100, a=1.0)
    again = checks.look()
    assert again.certificate is not None
    assert json.loads(again.certificate.summary)["arms"] == [["b", "b1"]]
    assert not standings(str(checks.path), checks.now)["t"].alarmed


def test_what_is_not_known_yet_revokes_nothing_and_promotes_nothing(checks: Checks) -> None:
    """Neither an answer that is still to come nor a label that has its time."""
    terms = replace(TERMS, maturity_days=1.0)
    checks.many(100)
    assert checks.look(terms).certificate is not None
    for _ in range(40):
        checks.add({"ref": "yes"})  # nothing else is there yet
    assert checks.look(terms).did == ()
    checks.now += 2 * HOUR  # they will never come: what a crash took says nothing of the plan
    assert checks.look(terms).did == ()
    for _ in range(40):
        checks.add({"ref": "yes", "a": "no", "b": "yes"})
    picture = checks.look(terms)
    assert (picture.did, picture.watched and picture.watched.waiting) == ((), 40)
    checks.now += 86_400
    assert checks.look(terms).did[0].startswith("revoked")


def test_what_is_missing_counts_as_a_loss(tmp_path: Path) -> None:
    """While a plan is to be proved nothing is taken on trust."""
    for missing, certified in ((0, True), (12, False)):
        checks = Checks(tmp_path / f"{missing}.db", 7)
        checks.many(60)
        for _ in range(missing):
            checks.add({"ref": "yes"})
        checks.many(60)
        assert (checks.look().certificate is not None) == certified


def test_a_label_decides_and_can_be_taken_back(checks: Checks) -> None:
    """A disagreement in which the cheap one was right is a gain."""
    checks.many(60)
    odd = [checks.add({"ref": "yes", "a": "no", "b": "no"}) for _ in range(12)]
    checks.many(60)
    before = checks.look()
    assert before.certificate is None
    for each in odd:
        checks.tell(each, "No")
    settled = checks.look()
    assert settled.certificate is not None
    assert settled.unlabelled == ()
    other = Checks(checks.path.with_name("other.db"))
    other.many(80)
    odd = [other.add({"ref": "yes", "a": "no", "b": "no"}) for _ in range(12)]
    disputed = other.look().unlabelled
    assert 0 < len(disputed) < 12  # those to choose plans by; there is none yet that evidence could prove
    other.tell(disputed[0], "no")
    assert other.look().unlabelled == disputed[1:]
    other.tell(disputed[0], None)
    assert other.look().unlabelled == disputed


def test_what_was_told_of_each_answer_decides(checks: Checks) -> None:
    """Of all routes or of none: a word about the one that was served says nothing of the others."""
    terms = replace(TERMS, grader="outcome")
    checks.many(80)
    odd = [checks.add({"ref": "yes", "a": "no", "b": "nay"}) for _ in range(20)]
    before = checks.look(terms)
    for check in odd:
        checks.judge(check, 1.0)
    assert [each.excess for each in checks.look(terms).standings] == [each.excess for each in before.standings]
    for check in odd:
        for (beside,) in checks.rows(f"SELECT id FROM receipts WHERE check_of = '{check}'"):
            checks.judge(beside, 1.0)
    settled = checks.look(terms)
    assert settled.certificate is not None
    assert {each.excess for each in settled.standings} == {0.0}


def test_a_judge_counts_as_far_as_labels_put_it_right(tmp_path: Path) -> None:
    """A judge that calls every difference a tie would promote anything; the coin's labels say how wrong it is."""
    for harmful, certified in ((False, True), (True, False)):
        checks = Checks(tmp_path / f"{harmful}.db", 3)
        terms = replace(TERMS, judge="judge", label_rate=0.5, max_loss=0.3, revoke_loss=0.4)
        rng = random.Random(5)
        for _ in range(400):
            differs = rng.random() < 0.5
            check = checks.add({"ref": "yes", "a": "no" if differs else "yes", "b": "other"})
            coin = 0.5 if rng.random() < 0.5 else None
            for arm in ["a", "b"] if differs else ["b"]:
                checks.verdict(check, arm, ("0", "0"), coin)
            if differs and coin is not None:
                checks.tell(check, "yes" if harmful else "no")
            elif coin is not None:
                checks.tell(check, "yes")
        picture = checks.look(terms)
        assert (picture.certificate is not None) == certified
        for plan in picture.standings:
            assert plan.excess == pytest.approx(0.5 if harmful else -0.5, abs=0.15)
            assert plan.high - plan.low > 0.5  # each label counts for two
        assert picture.unlabelled == ()


def test_what_a_judge_has_not_said_is_a_loss(checks: Checks) -> None:
    """Nor does a label count for which no coin fell."""
    terms = replace(TERMS, judge="judge", label_rate=0.5)
    checks.many(60, b=1.0)
    for _ in range(30):
        check = checks.add({"ref": "yes", "a": "no", "b": "no"})
        checks.tell(check, "no")
    picture = checks.look(terms)
    assert picture.certificate is None
    for each in picture.standings:
        assert each.excess > 0.5


def test_a_failure_is_what_a_plan_would_have_made_of_it(checks: Checks) -> None:
    """It goes on to the reference, and costs both."""
    checks.many(80, b=1.0)
    for _ in range(30):
        checks.add({"ref": "yes", "a": None, "b": "no"})
    picture = checks.look()
    (plan,) = [each for each in picture.standings if each.policy.words() == "a"]
    assert plan.excess == 0.0
    assert plan.cost_ratio > 0.2


def test_what_a_version_said_is_evidence_of_that_version_alone(checks: Checks) -> None:
    """A route that has become another has proved nothing, and ends what stands on it."""
    checks.many(100)
    assert checks.look().certificate is not None
    changed = replace(TERMS, arms=(("a", "a2"), ("b", "b1")))
    picture = checks.look(changed)
    assert picture.did == ("changed: a is not what was proved",)
    assert (picture.certificate, picture.evidence) == (None, 0)
    other = replace(TERMS, grader="exact:space")
    assert checks.look(other).why == "proved, and waits for 30 checks that no earlier attempt knew; there are 0"
    checks.many(50)
    graded = checks.look(other)
    assert graded.certificate is not None
    assert 30 <= json.loads(graded.certificate.summary)["fresh"] < 50 < json.loads(graded.certificate.summary)["reused"]
    assert checks.look(replace(TERMS, grader="contains")).did[0] == "changed: the reference, the grader or the judge"


def test_near_duplicates_are_one_row_of_evidence(checks: Checks) -> None:
    """And none is learned from while another is evidence; what was decided stays."""
    for _ in range(40):
        checks.add(
            {"ref": "yes", "a": "yes", "b": "yes"}, text="where is my parcel it should have come on monday already"
        )
    checks.many(30)
    first = checks.look()
    assert first.fit + first.evidence + first.repeats == 70
    same = checks.rows("SELECT part FROM parts ORDER BY id LIMIT 40")
    assert [part for (part,) in same] in (["fit"] * 40, ["evidence", *["repeat"] * 39])
    decided = checks.rows("SELECT * FROM parts ORDER BY id")
    checks.many(30)
    checks.look()
    assert checks.rows("SELECT * FROM parts ORDER BY id")[:70] == decided


def test_a_grader_that_raises_and_a_truth_of_the_wrong_kind_promote_nothing(checks: Checks) -> None:
    """What is wrong is said, with the check."""
    checks.many(100)
    checks.tell(checks.ids[50], '{"a": 1}')
    picture = checks.look()
    assert picture.certificate is None
    assert picture.why is not None
    assert "A truth for this grader is a text" in picture.why
    assert checks.ids[50] in picture.why


def test_a_route_without_a_price_is_named(checks: Checks) -> None:
    """Nothing is cheaper than what nobody knows the cost of."""
    checks.many(100)
    checks.rows("SELECT 1")
    receipt = make_receipt(
        id=ReceiptIds()(checks.now + 5), task="t", coin=1.0, check_of=None, route="ref", cost_picodollars=None,
        attempts=(Attempt("ref", "ref", "m", "r1", 0, 200, None, 0.0, 0.1, 0.2),),
    )  # fmt: skip
    checks.record((receipt, (b"{}", b"{}", None, False)))
    picture = checks.look()
    assert (picture.certificate, picture.why) == (
        None,
        'What an answer of "ref" costs is not known: give its price in [prices]',
    )


def test_a_look_that_does_not_act_changes_nothing(checks: Checks) -> None:
    """As `upstack tasks show`."""
    checks.many(100)
    picture = checks.look(acts=False)
    assert picture.certificate is not None
    for table in ("parts", "submissions", "certificates"):
        assert checks.rows(f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_worker_killed_at_any_moment_repeats_nothing(checks: Checks) -> None:
    """One attempt and one certificate, whatever became of those that tried."""
    checks.many(150)
    rng = random.Random(4)
    job = {"place": str(checks.path), "keystore": None, "tasks": {"t": msgspec.to_builtins(TERMS)}}
    for number in range(8):
        process = subprocess.Popen(
            [sys.executable, "-m", "upstack.application.rounds"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        if number < 7:
            time.sleep(rng.uniform(0.1, 1.6))
            os.kill(process.pid, signal.SIGKILL)
        else:
            deadline = time.monotonic() + 30
            while not checks.rows("SELECT 1 FROM certificates"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        process.stdin.close()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
    assert checks.rows("SELECT count(*) FROM certificates") == [(1,)]
    assert checks.rows("SELECT count(*) FROM submissions") == [(1,)]
    assert checks.rows("SELECT count(*) FROM parts") == [(150,)]


def test_only_one_proves_at_a_time(checks: Checks) -> None:
    """The lock is on the ledger, whatever link it is named by."""
    checks.many(1)
    link = checks.path.with_name("link.db")
    link.symlink_to(checks.path)
    with proofs.proving(str(checks.path)) as first, proofs.proving(str(link)) as second:
        assert (first, second) == (True, False)
    with proofs.proving(str(link)) as third:
        assert third
