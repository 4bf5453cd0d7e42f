"""How well light students do on recorded sets, beside TF-IDF and logistic regression as they come.

CLINC150 has parts of its own; the others are cross-validated, MaintKG so that the same text is never on both sides. A
request is strange from where on a twentieth of those in scope are: of the lessons while they were held back, or, to see
what that costs, of the validation part.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline, make_union

from benchmarks.loop.sets import Labelled, apart, clinc150, fmc, maintkg
from upstack.foundation.students.student import Student
from upstack.inference.distill.lessons import Lesson
from upstack.inference.distill.training import Teacher, train

_PARTS = ("clinc150", "fmc", "maintkg")
_REJECTED = 0.05  # share of requests in scope that are held strange
_FEWEST = 5  # rows of a system of MaintKG: there are five folds
_LOOSENESS = 10.0  # of the simple way: better on all three than 1, which it comes with

Split = tuple[NDArray[np.int64], NDArray[np.int64]]


class Score(msgspec.Struct, frozen=True):
    """Of 100: right answers, the mean over the classes of F1, and milliseconds of CPU an answer."""

    accuracy: float
    macro: float
    milliseconds: float


def main() -> None:
    """Train, measure, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=_PARTS)
    parser.add_argument("--repeats", type=int, default=10, help="of the cross-validation on FMC")
    options = parser.parse_args()
    if "UPSTACK_DATA" not in os.environ:
        sys.exit("Set UPSTACK_DATA to the folder of the recorded sets")
    data = Path(os.environ["UPSTACK_DATA"])
    print(f"{platform.machine()}, Python {platform.python_version()}\n")
    print("| figure | simple | ours | CPU ms an answer |\n|---|---|---|---|")
    for label, simple, ours, milliseconds in _measure(data, options):
        print(f"| {label} | {simple} | {ours} | {milliseconds} |", flush=True)


def _measure(data: Path, options: argparse.Namespace) -> Iterator[tuple[str, str, str, str]]:
    if options.only in {None, "clinc150"}:
        yield from _clinc(clinc150(data))
    if options.only in {None, "fmc"}:
        rows = fmc(data)
        splits = [
            split
            for seed in range(options.repeats)
            for split in KFold(5, shuffle=True, random_state=seed).split(np.zeros(len(rows)))
        ]
        yield _crossed(f"FMC, {options.repeats} x 5 folds: micro-F1 (macro)", rows, splits)
    if options.only in {None, "maintkg"}:
        rows = maintkg(data, _FEWEST)
        _, same = np.unique([text for text, _ in rows], return_inverse=True)
        splits = list(GroupKFold(5).split(np.zeros(len(rows)), groups=same))
        yield _crossed("MaintKG, system, 5 folds by text: accuracy (macro-F1)", rows, splits)


# -------------------------------------------------------------------------------------------------------- ways to learn


def learn(rows: Sequence[Labelled], rejected: float = _REJECTED) -> Student:
    """Train a student as the product does."""
    lessons = [Lesson(str(at), text, label) for at, (text, label) in enumerate(rows)]
    return train(lessons, Teacher("benchmark", rejected=rejected)).student


def learn_simply(rows: Sequence[Labelled]) -> Any:
    """Fit what anybody would try first."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    model = LogisticRegression(C=_LOOSENESS, max_iter=1_000)
    return make_pipeline(make_union(words, characters), model).fit(*apart(rows))


def strangeness(student: Student, texts: Sequence[str]) -> NDArray[np.float64]:
    """What a student compares to its threshold; endless for a text of which it knows nothing."""
    found = []
    for text in texts:
        logits, known = student._logits(text)  # noqa: SLF001 - it says no more than whether a text is strange
        found.append(student.strangeness(logits) if known else np.inf)
    return np.array(found)


# ------------------------------------------------------------------------------------------------------------- the sets


def _clinc(parts: dict[str, list[Labelled]]) -> Iterator[tuple[str, str, str, str]]:
    texts, labels = apart(parts["test"])
    checked, outside = apart(parts["val"])[0], apart(parts["oos_test"])[0]
    model = learn_simply(parts["train"])
    own = 100 * np.mean(model.predict(texts) == np.array(labels))
    doubts = {name: -model.predict_proba(each).max(axis=1) for name, each in (("val", checked), ("oos", outside))}
    start = time.process_time()
    student = learn(parts["train"])
    seconds = time.process_time() - start
    score = _score(student, parts["test"])
    found = {name: strangeness(student, each) for name, each in (("val", checked), ("oos", outside), ("test", texts))}
    trained = f"{score.accuracy:.2f}, trained in {seconds:.0f} s"
    yield "CLINC150: accuracy in scope", f"{own:.2f}", trained, f"{score.milliseconds:.2f}"
    yield (
        "CLINC150: out of scope and strange, 5 % of val rejected (of test)",
        _beyond(doubts["oos"], float(np.quantile(doubts["val"], 1 - _REJECTED))),
        _rejected(found, float(np.quantile(found["val"], 1 - _REJECTED))),
        "",
    )
    threshold = student.facts.calibration.strange
    rejected = _beyond(found["val"], threshold)
    yield f"The same, 5 % of lessons held back ({rejected} of val)", "", _rejected(found, threshold), ""


def _rejected(found: dict[str, NDArray[np.float64]], threshold: float) -> str:
    return f"{_beyond(found['oos'], threshold)} ({_beyond(found['test'], threshold)})"


def _beyond(found: NDArray[np.float64], threshold: float) -> str:
    return f"{100 * np.mean(found > threshold):.1f}"


def _crossed(label: str, rows: Sequence[Labelled], splits: Sequence[Split]) -> tuple[str, str, str, str]:
    simple, ours = [], []
    for learnt, left in splits:
        taught, asked = [rows[at] for at in learnt], [rows[at] for at in left]
        simple.append((left, list(learn_simply(taught).predict(apart(asked)[0]))))
        student = learn(taught)
        start = time.process_time()
        said = [student.say(text).content for text, _ in asked]
        ours.append((left, said, time.process_time() - start))
    milliseconds = 1_000 * sum(each[2] for each in ours) / sum(len(each[0]) for each in ours)
    of_ours = _folded(rows, [each[:2] for each in ours])
    return label, _folded(rows, simple), of_ours, f"{milliseconds:.2f}"


def _folded(rows: Sequence[Labelled], folds: Sequence[tuple[NDArray[np.int64], list[str]]]) -> str:
    """Five folds are a round, scored together; of the rounds the mean."""
    accuracies, macros = [], []
    for start in range(0, len(folds), 5):
        right = [rows[at][1] for left, _ in folds[start : start + 5] for at in left]
        said = [each for _, found in folds[start : start + 5] for each in found]
        accuracies.append(100 * np.mean(np.array(right) == np.array(said)))
        macros.append(100 * f1_score(right, said, average="macro", zero_division=0.0))
    return f"{statistics.mean(accuracies):.2f} ({statistics.mean(macros):.1f})"


def _score(student: Student, rows: Sequence[Labelled]) -> Score:
    texts, labels = apart(rows)
    start = time.process_time()
    said = [student.say(text).content for text in texts]
    seconds = time.process_time() - start
    accuracy = 100 * float(np.mean(np.array(said) == np.array(labels)))
    macro = 100 * float(f1_score(labels, said, average="macro", zero_division=0.0))
    return Score(accuracy, macro, 1_000 * seconds / len(rows))


if __name__ == "__main__":
    main()
