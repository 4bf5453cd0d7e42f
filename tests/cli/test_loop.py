"""What a person does with a task that learns: review, explain rights, export, compare, forget."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("sklearn", reason="students are trained with the extra `learn`")

from tests.cli.calling import call
from tests.reports import REFERENCE, reports
from upstack.application.simulation.run import Play, simulate
from upstack.core.config import Config
from upstack.core.store.students import students_of
from upstack.core.traffic import write_traffic

CONFIG = """
[server]
ledger = "ledger.db"
[providers.openai]
base_url = "http://127.0.0.1:9/v1"
auth = "none"
[tasks.triage]
reference = "openai/gpt-4"
candidates = ["student/triage"]
strategy = "confidence"
grader = "exact"
labels = true
min_hours = 0.0
max_loss = 0.05
confidence = 0.9
"""
CANARY = "zanzibarian flux capacitor"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which a loop has gone round, and its configuration. One subject's rows hold a canary."""
    folder = tmp_path_factory.mktemp("played")
    rows = reports(240)
    for at in range(0, 240, 12):
        messages: Any = (
            {"role": "user", "content": f"{CANARY} {rows[at].messages[1]['content']} mail ann@example.org"},
        )
        rows[at] = msgspec.structs.replace(rows[at], messages=messages, subject="ann")
    rows[1] = msgspec.structs.replace(rows[1], rights={"licence": "cc-by-nc-4.0"})
    rows[3] = msgspec.structs.replace(rows[3], rights="mit")
    rows[2] = msgspec.structs.replace(rows[2], rights={"licence": "mit", "residency": "onsite"})
    write_traffic(folder / "traffic.jsonl", rows)
    play = Play(folder / "traffic.jsonl", REFERENCE, labels=20, max_loss=0.05, ledger=folder / "ledger.db")
    simulate(play, Config(), lambda *_: None)
    (folder / "upstack.toml").write_text(CONFIG)
    return folder


@pytest.fixture
def folder(played: Path, tmp_path: Path) -> Path:
    """The same, for one test alone."""
    return Path(shutil.copytree(played, tmp_path / "folder"))


def test_reviewing_lists_what_waits_in_two_queues_and_does_not_say_whose_answer_is_whose(folder: Path) -> None:
    """Evidence stands in the order of the requests, and no row is in both."""
    queues = call("review", "triage", "--json", cwd=folder).json
    evidence = [each["id"] for each in queues["evidence"]]
    training = [each["id"] for each in queues["training"]]
    assert not set(evidence) & set(training)
    assert training or evidence
    for each in queues["evidence"] + queues["training"]:
        assert len(set(each["answers"])) == len(each["answers"]) >= 2
    assert "gpt-4" not in json.dumps(queues)


def test_a_row_and_a_student_explain_what_may_be_done_with_them(folder: Path) -> None:
    """The student is bound by what its rows are: a classifier that stays in the house."""
    (student, *_) = [each.id for each in students_of(str(folder / "ledger.db"), "triage") if each.ended_at is None]
    said = call("rights", "why", student, "--json", cwd=folder).json
    assert said["may_distil"] is True
    assert set(said["conditions"]) == {"classifier", "not_distributed"}
    assert "Not legal advice" in said["note"]
    shown = call("rights", "why", student, cwd=folder).out
    assert "As long as" in shown
    assert call("rights", "why", "rcpt_nothing", cwd=folder).code == 1


@pytest.mark.parametrize("form", ["openai-jsonl", "preferences", "parquet"])
def test_what_may_leave_leaves_with_a_card_and_the_rest_says_why_not(folder: Path, form: str) -> None:
    """A row for non-commercial use and one that is to stay are withheld."""
    done = call("data", "export", "triage", f"out.{form}", "--format", form, "--mask", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert sum(done.json["withheld"].values()) == (0 if form == "preferences" else 2)  # of those that were corrected
    data = (folder / f"out.{form}").read_bytes()
    assert b"ann@example.org" not in data
    card = (folder / f"out.{form}.card.md").read_text()
    assert form == "preferences" or "notice" in card
    assert "Not legal advice" in card
    if form == "openai-jsonl":
        rows = [json.loads(line) for line in data.splitlines()]
        assert len(rows) == done.json["rows"] > 200
        assert rows[0]["messages"][-1]["role"] == "assistant"
    elif form == "preferences":
        rows = [json.loads(line) for line in data.splitlines()]
        assert all(row["preferred_output"] != row["non_preferred_output"] for row in rows)
    else:
        import duckdb

        with duckdb.connect() as database:
            (count,) = database.execute(f"SELECT count(*) FROM '{folder}/out.{form}'").fetchone() or (0,)
        assert count == done.json["rows"] > 200


def test_snapshots_are_listed_and_compared(folder: Path) -> None:
    """What came and what went stands between two of them."""
    call("data", "export", "triage", "out.jsonl", cwd=folder)
    found = call("data", "snapshots", "triage", "--json", cwd=folder).json
    assert len(found) >= 2
    said = call("data", "diff", "triage", found[0]["id"][:12], found[-1]["id"][:12], "--json", cwd=folder).json
    assert said["added"]
    assert call("data", "diff", "triage", "ffff", "0000", cwd=folder).code == 1


def test_a_subject_that_is_forgotten_is_nowhere_and_students_are_trained_anew(folder: Path) -> None:
    """Not a byte of the canary is left in any file; the chain still verifies, and the next turn trains another."""
    place = str(folder / "ledger.db")
    call("data", "export", "triage", "out.jsonl", cwd=folder)
    before = [each.id for each in students_of(place, "triage") if each.ended_at is None]
    said = call("forget", "--subject", "ann", "--yes", "--json", cwd=folder).json
    assert said["contents"] >= 20
    assert set(before) & set(said["students"])
    assert any(each.endswith("out.jsonl") for each in said["exports"])
    (folder / "out.jsonl").unlink()
    (folder / "traffic.jsonl").unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(word.encode() in data for word in (CANARY, "zanzibarian", "ann@example")), path
    assert call("ledger", "verify", cwd=folder).code == 0
    assert call("loop", "run", "--once", cwd=folder).code == 0
    after = [each.id for each in students_of(place, "triage") if each.ended_at is None]
    assert after[-1] not in before
    again = call("forget", "--subject", "ann", "--yes", "--json", cwd=folder).json
    assert again["contents"] == 0


def test_the_commands_of_tasks_know_students_and_end_no_certificate_for_them(folder: Path) -> None:
    """To look at a task, or to go round it by hand, leaves what serves as it is."""
    before = call("tasks", "show", "triage", "--json", cwd=folder).json
    done = call("certify", "triage", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert not any("changed: student" in each for each in done.json["did"])
    assert call("tasks", "labels", "triage", "--json", cwd=folder).code == 0
    assert call("tasks", "show", "triage", "--json", cwd=folder).json["task"] == before["task"]


def test_rights_come_in_with_what_is_imported(tmp_path: Path) -> None:
    """So do rows with a truth and no answer: something to learn from."""
    rows = [
        msgspec.structs.replace(row, rights={"licence": "cc-by-nc-4.0"}, time=float(at))
        for at, row in enumerate(reports(3))
    ]
    rows.append(msgspec.structs.replace(reports(1, seed=2)[0], answers={}, time=9.0))
    write_traffic(tmp_path / "traffic.jsonl", rows)
    done = call("import", "traffic.jsonl", "--ledger", "l.db", "--json", cwd=tmp_path)
    assert done.json["added"] == 4
    from upstack.application.data.capture import capture
    from upstack.application.data.rights import Judge
    from upstack.core.config.rights import RightsConfig

    place = str(tmp_path / "l.db")
    judge = Judge(place, RightsConfig())
    kept = judge.said("triage")
    captured = capture(place, "triage", (REFERENCE,))
    assert [row.teacher is not None for row in captured] == [True, True, True, False]
    assert all(row.truth is not None for row in captured)
    may = [judge.of(judge.facts(row, kept.get(row.id, {}))).may_train for row in captured]
    assert may == [False, False, False, True]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("[loop]\nspeed = 1", "unknown key `loop.speed`"),
        ("[loop]\ngrowth = 0.0", "loop.growth"),
        ("[rights]\nusrs = 1", "did you mean `users`"),
        ('[rights.terms.x]\ndistil = "maybe"', "Allowed: yes, no, unknown"),
        ('[[rights.terms.x.unless]]\nconditions = ["users<abc"]', "rights.terms.x"),
        ('[[rights.terms.x.unless]]\nconditions = ["on sundays"]', "is unknown"),
    ],
)
def test_a_mistake_in_the_new_tables_is_named(folder: Path, more: str, why: str) -> None:
    """Which key, and what is allowed."""
    (folder / "upstack.toml").write_text(f"{CONFIG}\n{more}\n")
    done = call("tasks", cwd=folder)
    assert done.code == 2
    assert why in done.err


def test_a_task_that_learns_nothing_says_how_it_would(folder: Path) -> None:
    """The remedy is in the message."""
    (folder / "upstack.toml").write_text(CONFIG.replace('"student/triage"', '"openai/gpt-5"'))
    for command in (("review", "triage"), ("data", "export", "triage", "x"), ("loop", "run", "triage", "--once")):
        done = call(*command, cwd=folder)
        assert done.code == 2
        assert 'give it the candidate "student/triage"' in done.err
