"""Which rows are lessons, whom to believe, and what is left out for which reason."""

from __future__ import annotations

import random

from tests.reports import reports
from upstack.application.data.cleaning import clean
from upstack.application.data.trust import FEW, SHARE_OF_ALL, Said, believe
from upstack.foundation.students.student import read_by_student
from upstack.inference.distill.lessons import Lesson


def usual(count: int = 60) -> list[Lesson]:
    """Rows as most are."""
    return [Lesson(row.id, read_by_student(row.messages), str(row.truth)) for row in reports(count, wrong=0.0)]


def test_what_says_nothing_is_left_out() -> None:
    """An empty request, an empty answer."""
    kept, dropped = clean([*usual(), Lesson("a", "  ", "pump"), Lesson("b", "pump leaks", "")])
    assert dropped == {"a": "it says nothing", "b": "its answer says nothing"}
    assert len(kept) == 60


def test_of_the_same_request_the_answer_that_most_have_counts_and_a_persons_above_all() -> None:
    """Case, blanks and stops make no other request; other numbers do."""
    most = [
        Lesson("1", "Valve 12 stuck!", "pump"),
        Lesson("2", "valve 12  stuck", "pump"),
        Lesson("3", "valve 12 stuck", "crane"),
    ]
    _, dropped = clean(most)
    assert set(dropped) == {"3"}
    _, dropped = clean([*most, Lesson("4", "valve 12 stuck", "crane", human=True)])
    assert set(dropped) == {"1", "2"}
    _, dropped = clean([Lesson("1", "valve 12 stuck", "pump"), Lesson("2", "valve 13 stuck", "crane")])
    assert dropped == {}
    _, dropped = clean([Lesson("1", "valve stuck", "pump"), Lesson("2", "valve stuck", "crane")])
    assert set(dropped) == {"1", "2"}


def test_what_is_far_longer_or_in_another_script_than_usual_is_left_out_unless_a_person_said_so() -> None:
    """A document among messages, another language among ours."""
    odd = [Lesson("long", "pump " * 5_000, "pump"), Lesson("script", "насос течёт", "pump")]
    _, dropped = clean([*usual(), *odd])
    assert set(dropped) == {"long", "script"}
    _, dropped = clean([*usual(), *(Lesson(each.id, each.text, each.answer, human=True) for each in odd)])
    assert dropped == {}


def test_one_source_cannot_say_much_and_all_together_weigh_little() -> None:
    """However many rows are claimed."""
    rng = random.Random(1)
    one = [Said(f"r{at}", "anna", rng.choice("ab")) for at in range(500)]
    believed = believe(one, {}, 1000, {"a", "b"})
    assert len(believed.answers) == max(FEW, 20)
    many = [Said(f"r{at}", f"key{at}", "a") for at in range(900)]
    believed = believe(many, {}, 1000, {"a", "b"})
    assert sum(weight for _, weight in believed.answers.values()) <= SHARE_OF_ALL * 1000 + 1e-6


def test_sources_that_contradict_each_other_or_say_what_was_never_said_are_not_believed() -> None:
    """Neither a tie nor an answer out of thin air."""
    believed = believe([Said("r", "anna", "a"), Said("r", "bert", "b"), Said("s", "anna", "zzz")], {}, 100, {"a", "b"})
    assert believed.answers == {}
    assert "contradict" in believed.dropped["r"]
    assert "neither the teacher nor a reviewer" in believed.dropped["s"]


def test_a_source_that_is_wrong_where_it_is_known_is_quarantined_and_one_that_errs_seldom_is_not() -> None:
    """Rows whose truth is known are the canaries."""
    truths = {f"r{at}": "a" for at in range(10)}
    bad = [Said(f"r{at}", "bad", "b") for at in range(3)] + [Said("x", "bad", "b")]
    good = [Said(f"r{at}", "good", "a" if at else "b") for at in range(10)] + [Said("y", "good", "b")]
    believed = believe([*bad, *good], truths, 100, {"a", "b"})
    assert set(believed.quarantined) == {"bad"}
    assert set(believed.answers) == {"y"}
