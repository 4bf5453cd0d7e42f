"""The closed loop over recorded traffic: what it saves, what it keeps to, and that it may be killed anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("sklearn", reason="students are trained with the extra `learn`")

from tests.cli.calling import call
from tests.reports import REFERENCE, reports
from tests.tiny_bert import tiny_bert
from upstack.application.simulation.result import Result
from upstack.application.simulation.run import Play, simulate
from upstack.core.config import Config
from upstack.core.config.rights import RightsConfig, Text
from upstack.core.errors import ConfigError, EvidenceError
from upstack.core.store.proofs import history
from upstack.core.store.students import students_of
from upstack.core.store.verify import verify
from upstack.core.traffic import TrafficRow, write_traffic

KILLS = 10


def played(folder: Path, rows: list[TrafficRow], config: Config | None = None, **wish: Any) -> Result:
    """Simulate rows; the ledger stays in the folder."""
    write_traffic(folder / "traffic.jsonl", rows)
    usual: dict[str, Any] = {"labels": 100, "max_loss": 0.05, "confidence": 0.9, "ledger": folder / "ledger.db"}
    play = Play(folder / "traffic.jsonl", REFERENCE, **usual | wish)
    return simulate(play, config or Config(), lambda _done, _of: None)


def test_a_student_takes_over_what_it_has_proved_to_do_no_worse(tmp_path: Path) -> None:
    """The reference is asked less and less, and the answers are better than its own, as its errors follow no rule."""
    result = played(tmp_path, reports(500))
    assert result.promotions >= 1
    assert result.reference_share < 0.7
    assert result.accuracy is not None and result.reference_accuracy is not None  # noqa: PT018 - for mypy
    assert result.accuracy >= result.reference_accuracy
    assert 0 < result.labels_used <= 100
    assert result.cost_usd < 0.75 * result.reference_cost_usd
    assert [point.requests for point in result.curve] == [25 * step for step in range(1, 21)]
    shares = [point.reference_share for point in result.curve]
    assert shares[0] == 1.0
    assert shares[-1] == result.reference_share
    assert not verify(str(tmp_path / "ledger.db")).found


def test_without_labels_nothing_is_certified_that_differs_from_a_reference_that_errs(tmp_path: Path) -> None:
    """Each disagreement counts as a loss: of a reference wrong in a tenth of all nothing cheaper is proved at .02."""
    result = played(tmp_path, reports(400, wrong=0.2), labels=0, max_loss=0.02)
    assert result.promotions == 0
    assert result.reference_share == 1.0
    assert result.accuracy == result.reference_accuracy
    assert result.why is not None


def test_uncertified_it_serves_what_it_is_sure_of_and_says_so(tmp_path: Path) -> None:
    """The plain threshold, for comparison: no check, no evidence, no certificate."""
    result = played(tmp_path, reports(300), labels=0, threshold=0.5)
    assert not result.certified
    assert result.promotions >= 1
    assert result.reference_share < 0.5
    assert not history(str(tmp_path / "ledger.db"), "triage").certificates


def test_the_truth_is_used_for_scoring_alone(tmp_path: Path) -> None:
    """Other truths change what is scored, and nothing else."""
    rows = reports(200)
    lied = [msgspec.structs.replace(row, truth="navy") for row in rows]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = played(tmp_path / "a", rows, labels=0, threshold=0.5)
    other = played(tmp_path / "b", lied, labels=0, threshold=0.5)
    assert one.reference_share == other.reference_share
    assert other.accuracy == 0.0


def test_what_is_known_beforehand_teaches_the_first_student(tmp_path: Path) -> None:
    """With a start set there is a student before the first request."""
    start = [msgspec.structs.replace(row, answers={}) for row in reports(120, seed=5)]
    write_traffic(tmp_path / "start.jsonl", start)
    result = played(tmp_path, reports(200), labels=0, threshold=0.5, start=tmp_path / "start.jsonl")
    assert result.curve[0].reference_share < 1.0


def test_with_an_encoder_there_are_two_students_and_the_one_that_promises_more_is_proved(tmp_path: Path) -> None:
    """Both rungs of the ladder learn from the same snapshot, the cheaper first."""
    from upstack.application.proving.pupils import Learnt

    encoder = tiny_bert(tmp_path / "encoder")
    result = played(tmp_path, reports(300), encoder=encoder)
    living = [each for each in students_of(str(tmp_path / "ledger.db"), "triage") if each.ended_at is None]
    newest = [each for each in living if each.snapshot == living[-1].snapshot]
    assert [msgspec.json.decode(each.summary, type=Learnt).rung for each in newest] == ["linear", "encoder"]
    assert result.promotions >= 1


def _state(place: Path) -> tuple[Any, ...]:
    past = history(str(place), "triage")
    issued = [(each.id, each.plan, each.issued_at, each.ended_why) for each in past.certificates]
    return issued, [each.id for each in students_of(str(place), "triage")]


@pytest.mark.timeout(240)
def test_killed_anywhere_it_goes_on_to_the_same_end(tmp_path: Path) -> None:
    """Ten kills at random moments: the students, the certificates and all figures but times are what they would be."""
    rows = reports(150)
    wish: dict[str, Any] = {"labels": 50, "max_loss": 0.1}
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    began = time.monotonic()
    one = played(tmp_path / "whole", rows, **wish)
    took = time.monotonic() - began
    rng = random.Random(7)
    kills = 0
    while kills < KILLS:
        child = os.fork()
        if child == 0:  # with all that is loaded already
            with contextlib.suppress(BaseException):
                played(tmp_path / "killed", rows, **wish)
            os._exit(0)
        time.sleep(rng.uniform(0.02, 0.3) * took)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        kills += 1
    other = played(tmp_path / "killed", rows, **wish)
    assert kills >= 3
    for name in ("requests", "reference_share", "accuracy", "labels_used", "promotions", "students", "serves"):
        assert getattr(one, name) == getattr(other, name), name
    assert _state(tmp_path / "killed" / "ledger.db") == _state(tmp_path / "whole" / "ledger.db")


def test_rows_that_may_not_be_learned_from_teach_nobody(tmp_path: Path) -> None:
    """Of mixed rows only those that may are in any student; consent that was refused counts for people's words, too."""
    rng = random.Random(2)
    kinds: list[dict[str, Any] | None] = [None, {"licence": "mit"}, {"licence": "cc-by-nc-4.0"}, {"consent": "no"}]
    kinds += [{"purpose": "billing"}, {"licence": "who knows"}, {"licence": "llama-2"}]
    rows = [msgspec.structs.replace(row, rights=rng.choice(kinds)) for row in reports(400)]
    allowed = {row.id for row in rows if row.rights is None or row.rights == {"licence": "mit"}}
    result = played(tmp_path, rows, threshold=0.5)
    assert result.students >= 1
    place = str(tmp_path / "ledger.db")
    from upstack.application.proving.pupils import Learnt
    from upstack.application.simulation.stream import Stream, shuffled
    from upstack.core.types import Price

    stream = Stream("triage", shuffled(rows, REFERENCE, 0), (), REFERENCE, Price("", ()), 0, 0.0, 0)
    names = {stream.id(at): row.id for at, row in enumerate(stream.rows)}
    for student in students_of(place, "triage"):
        learnt = msgspec.json.decode(student.summary, type=Learnt)
        assert {names[row] for row in learnt.rows} <= allowed
        assert "openai-services-2026-01" in learnt.texts


@pytest.mark.parametrize(
    ("rights", "why"),
    [
        (RightsConfig(distributed=True), "openai-services-2026-01 does not permit it"),
        (
            RightsConfig(terms={"ours": Text(providers=("openai",), distil="no", train="yes", source="a letter")}),
            "a letter",
        ),
    ],
)
def test_a_teacher_that_may_not_teach_is_asked_for_ever(tmp_path: Path, rights: RightsConfig, why: str) -> None:
    """OpenAI's exception is for classifiers that stay in the house; the user's own text stands before the table's."""
    result = played(tmp_path, reports(150), Config(rights=rights))
    assert result.students == 0
    assert result.reference_share == 1.0
    assert result.why is not None
    assert why in result.why


def test_a_licence_that_is_revoked_ends_the_students_that_stand_on_it(tmp_path: Path) -> None:
    """What was permitted when they were trained is judged again, and they serve no longer."""
    rows = reports(300)
    first = played(tmp_path, rows, threshold=0.5)
    assert first.students >= 1
    forbidden = RightsConfig(terms={"new": Text(providers=("openai",), distil="no", train="yes", source="a new text")})
    again = played(tmp_path, rows, Config(rights=forbidden), threshold=0.5)
    assert again.serves is None
    living = [each for each in students_of(str(tmp_path / "ledger.db"), "triage") if each.ended_at is None]
    assert not living


def test_ten_percent_of_hostile_feedback_promotes_no_worse_student(tmp_path: Path) -> None:
    """Sources that say the wrong thing of rows whose truth is known are not believed of others."""
    from upstack.application.data.trust import Said, believe

    rows = reports(300, wrong=0.0)
    truths = {row.id: str(row.truth) for row in rows[:30]}
    hostile = [Said(row.id, f"bot{at % 3}", "crane") for at, row in enumerate(rows[:60:2])]
    honest = [Said(row.id, "anna", str(row.truth)) for row in rows[1:61:2]]
    believed = believe([*hostile, *honest], truths, len(rows), {"pump", "conveyor", "sensor", "crane"})
    assert set(believed.quarantined) == {"bot0", "bot1", "bot2"}
    assert all(believed.answers[row.id][0] == row.truth for row in rows[31:61:2] if row.id in believed.answers)
    assert not any(each.row in believed.answers for each in hostile if each.row not in truths)


@pytest.mark.parametrize(
    ("wish", "error", "why"),
    [
        ({"task": "other"}, ConfigError, "holds no rows of task other"),
        ({"schema": {"properties": {"free": {"type": "string"}}}}, EvidenceError, "leaves free open"),
        ({"encoder": Path("/nowhere")}, ConfigError, "cannot be read"),
        ({"grader": "nothing"}, ConfigError, "no grader"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    tmp_path: Path, wish: dict[str, Any], error: type[Exception], why: str
) -> None:
    """A wrong wish is an error before anything is done."""
    with pytest.raises(error, match=why):
        played(tmp_path, reports(60), **wish)


def test_answers_that_do_not_fit_the_schema_are_an_honest_stop(tmp_path: Path) -> None:
    """The reference answers for ever, and it is said why."""
    schema = {"properties": {"crew": {"enum": ["a", "b"]}}}
    result = played(tmp_path, reports(150), threshold=0.5, schema=schema)
    assert result.reference_share == 1.0
    assert result.why is not None
    assert "no answer fits the schema" in result.why


def test_a_reference_that_answered_nothing_is_named(tmp_path: Path) -> None:
    """Which routes there are is said."""
    write_traffic(tmp_path / "traffic.jsonl", reports(5))
    with pytest.raises(EvidenceError, match=f"Routes there: {REFERENCE}"):
        simulate(Play(tmp_path / "traffic.jsonl", "openai/gpt-9", prices=_prices(tmp_path)), Config(), lambda *_: None)


def _prices(folder: Path) -> Path:
    path = folder / "prices.toml"
    path.write_text('[prices."openai/gpt-9"]\ninput = 1\noutput = 1\n')
    return path


def test_the_command_prints_what_came_of_it(tmp_path: Path) -> None:
    """Its JSON has the members that others read."""
    write_traffic(tmp_path / "traffic.jsonl", reports(120))
    flags = ["loop", "simulate", "traffic.jsonl", "--reference", REFERENCE, "--uncertified", "--seed", "3"]
    done = call(*flags, "--json", cwd=tmp_path)
    said = json.loads(done.out)
    names = {"requests", "reference_share", "accuracy", "reference_accuracy", "labels_used", "cost_usd"}
    assert names | {"reference_cost_usd", "promotions", "revocations", "curve"} <= set(said)
    shown = call(*flags, cwd=tmp_path)
    assert "Nothing of this is certified" in shown.out
    bad = call(*flags, "--max-loss", "0.1", cwd=tmp_path)
    assert bad.code == 2
    assert "--uncertified proves nothing" in bad.err
