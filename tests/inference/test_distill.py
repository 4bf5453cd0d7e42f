"""What a student learns, how sure it is, and what it does not learn."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

pytest.importorskip("sklearn", reason="students are trained with the extra `learn`")

from tests.reports import CREWS, REFERENCE, reports
from upstack.core.errors import ConfigError, EvidenceError
from upstack.foundation.students.student import Student, digest_of, load, read_by_student
from upstack.inference.distill.lessons import Lesson, fields_of, sort
from upstack.inference.distill.training import Teacher, Trained, train


def lessons(count: int, seed: int = 0, wrong: float = 0.0) -> list[Lesson]:
    """Fault reports and the teacher's answers."""
    rows = reports(count, seed, wrong)
    return [Lesson(row.id, read_by_student(row.messages), row.answers[REFERENCE].content or "") for row in rows]


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A student of 300 reports, a tenth of which were answered wrongly."""
    return train(lessons(300, wrong=0.1), Teacher("triage"))


def test_a_student_is_better_than_its_teacher_where_the_teacher_errs_at_random(trained: Trained) -> None:
    """Errors that follow no rule are not learned."""
    new = reports(200, seed=9)
    right = [trained.student.say(read_by_student(row.messages)).content == row.truth for row in new]
    assert sum(right) >= 0.97 * len(right)


def test_how_sure_it_is_can_be_believed(trained: Trained) -> None:
    """Of what it says with a chance of p about p is what the teacher says, on rows it had not seen."""
    said = trained.unseen.values()
    mean = sum(each.confidence for each in said) / len(said)
    assert abs(mean - trained.accuracy) < 0.05
    assert 0.8 < trained.accuracy < 0.95


def test_what_it_says_of_a_lesson_was_said_without_having_seen_it() -> None:
    """Answers that no text explains cannot be foretold."""
    rng = random.Random(1)
    noise = [
        Lesson(f"{at}", f"word{rng.randrange(10**6)} text{rng.randrange(10**6)}", rng.choice("ab")) for at in range(300)
    ]
    trained = train(noise, Teacher("noise"))
    assert trained.accuracy < 0.6
    assert set(trained.unseen) == {each.id for each in noise}


def test_the_same_lessons_give_the_same_student_to_the_byte_and_others_another(trained: Trained) -> None:
    """A student is named by what it is."""
    again = train(lessons(300, wrong=0.1), Teacher("triage"))
    assert again.student.to_bytes() == trained.student.to_bytes()
    other = train(lessons(300, seed=1), Teacher("triage"))
    assert digest_of(other.student.to_bytes()) != digest_of(trained.student.to_bytes())


def test_a_student_that_was_kept_says_what_it_said(trained: Trained) -> None:
    """Written and read, nothing of it changes; nor does any text of the lessons stand in it."""
    data = trained.student.to_bytes()
    again = load(data, "here")
    for row in reports(50, seed=5):
        text = read_by_student(row.messages)
        assert again.say(text) == trained.student.say(text)
    assert b"cavitation" not in data
    assert b"impeller" not in data


def test_a_file_that_is_no_student_is_refused(trained: Trained) -> None:
    """Cut, bent or foreign: a plain error, and nothing is executed."""
    data = trained.student.to_bytes()
    for bad in (b"", b"x" * 100, data[:-10], data[:200], b"\x80\x04\x95" + data, (10**12).to_bytes(8, "little") + data):
        with pytest.raises(ConfigError, match="here"):
            load(bad, "here")
    for flip in range(8, 400, 13):
        bent = bytearray(data)
        bent[flip] ^= 0x41
        try:
            load(bytes(bent), "here")
        except ConfigError:
            continue


def test_a_request_unlike_all_lessons_is_answered_without_confidence(trained: Trained) -> None:
    """It is escalated: of foreign requests most are known to be strange, of usual ones one in a hundred or so."""
    foreign = ["¿dónde está la biblioteca?", "请问这个多少钱", "zzz qqq xxx", "1234567890", "мир труд май"]
    said = [trained.student.say(each) for each in foreign]
    assert all(each.strange and each.confidence == 0.0 for each in said)
    usual = [trained.student.say(read_by_student(row.messages)) for row in reports(300, seed=4)]
    assert sum(each.strange for each in usual) <= 12


@pytest.mark.parametrize(
    ("few", "why"),
    [
        ([], "nothing to learn"),
        ([Lesson("1", "a b", "x"), Lesson("2", "c d", "x")], "all 2 answers are the same"),
        ([Lesson("1", "a b", "  ")], "its answer is empty"),
        ([Lesson(str(at), f"text {at}", f"answer {at}") for at in range(30)], "30 different ones"),
    ],
)
def test_what_teaches_nothing_is_an_honest_stop(few: list[Lesson], why: str) -> None:
    """An empty task, one class, answers that never come again."""
    with pytest.raises(EvidenceError, match=why):
        train(few, Teacher("triage"))


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "crew": {"enum": sorted(CREWS)},
        "urgent": {"type": "boolean"},
        "number": {"type": ["string", "null"], "x-upstack-copy": r"\b\d{3,6}\b"},
    },
}


def structured(count: int, seed: int = 0) -> list[Lesson]:
    """Reports whose answers have three fields, one of which is copied."""
    found: list[Lesson] = []
    for row in reports(count, seed, 0.0):
        text = read_by_student(row.messages)
        if seed % 2 == 0 and len(found) % 3 == 0:
            text = f"ticket 4711 about {text}"
        words, number = text.rsplit(" ", 1)
        asset = number if len(number) >= 3 else None
        text = f"{words} asset {number}"
        answer = {"crew": row.truth, "urgent": "urgent" in text, "number": asset}
        found.append(Lesson(row.id, text, msgspec.json.encode(answer).decode()))
    return found


def test_each_field_of_a_schema_is_learned_and_a_copied_one_comes_from_the_request() -> None:
    """The student fills an object as the schema describes it."""
    student = train(structured(400), Teacher("triage", SCHEMA)).student
    new = structured(200, seed=8)
    said = [msgspec.json.decode(student.say(each.text).content) for each in new]
    right = [msgspec.json.decode(each.answer) for each in new]
    for field, least in (("crew", 0.97), ("urgent", 0.97), ("number", 0.95)):
        assert sum(one[field] == other[field] for one, other in zip(said, right, strict=True)) >= least * len(new), (
            field
        )
    assert all(each["number"] is None or each["number"] in lesson.text for each, lesson in zip(said, new, strict=True))


def test_answers_that_do_not_fit_the_schema_teach_nothing_and_say_why() -> None:
    """They are left out one by one; where none is left, that is the end of it."""
    bad = [
        Lesson("prose", "pump leaks", "The pump crew."),
        Lesson("list", "pump leaks", "[1]"),
        Lesson("value", "pump leaks", '{"crew": "navy", "urgent": false, "number": null}'),
        Lesson("made up", "pump leaks", '{"crew": "pump", "urgent": false, "number": "12345"}'),
    ]
    sorted_ = sort([*structured(40), *bad], fields_of(SCHEMA))
    assert set(sorted_.dropped) == {"prose", "list", "value", "made up"}
    assert "none of the schema's values" in sorted_.dropped["value"]
    assert "does not stand in the request" in sorted_.dropped["made up"]
    with pytest.raises(EvidenceError, match="no answer fits the schema"):
        sort(bad, fields_of(SCHEMA))


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "array"}, "no object with properties"),
        ({"properties": {"free": {"type": "string"}}}, "leaves free open"),
        ({"properties": {"at": {"x-upstack-copy": "("}}}, "no pattern"),
    ],
)
def test_a_schema_that_no_student_can_fill_says_so(schema: dict[str, Any], why: str) -> None:
    """What is left open is named."""
    with pytest.raises(EvidenceError, match=why):
        fields_of(schema)


def test_what_a_person_said_weighs_more_than_what_the_teacher_said() -> None:
    """Half as many people outweigh the teacher."""
    both = [Lesson(f"t{at}", "valve stuck", "pump") for at in range(30)]
    both += [Lesson(f"h{at}", "valve stuck", "crane", human=True) for at in range(20)]
    both += [Lesson(f"o{at}", f"belt {at} slips", "conveyor") for at in range(20)]
    assert train(both, Teacher("triage")).student.say("valve stuck").content == "crane"


def test_an_answer_takes_less_than_two_milliseconds_of_a_processor(trained: Trained) -> None:
    """What is asserted is that it answers any text; the time is printed by the benchmark."""
    student: Student = trained.student
    for text in ("", " ", "x" * 100_000, "\ud800 lone", "pump " * 5_000, "\0"):
        assert student.say(text).content in CREWS
