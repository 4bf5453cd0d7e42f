"""Trains a student, and says what it would have answered to each row had it not seen it. Needs the extra `learn`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from upstack.core.grams import KINDS
from upstack.foundation.students.features import Features, vocabulary_of
from upstack.foundation.students.student import Calibration, Choice, Copy, Facts, Said, Student
from upstack.inference.distill.copying import learn_copier
from upstack.inference.distill.lessons import Field, Lesson, Sorted, fields_of, sort
from upstack.inference.distill.softmax import Floats, Rows, Space, fit

Encode = Callable[[str], NDArray[np.float32]]

REJECTED = 0.01  # share of requests like those learned from that are held strange all the same
_LOOSENESS = 30.0
_FOLDS = 5
_FEW = 2_000  # rows up to which every run counts; of more those that come twice
_NAMED = 1.0  # what the name of a value weighs, as if somebody had asked just that
_LEAST_SLOPE = 0.05  # of a calibration
_ENOUGH = 40  # unseen rows to calibrate by


class Teacher(msgspec.Struct, frozen=True):
    """How to train: the same of all gives the same student, to the byte."""

    task: str
    schema: Mapping[str, Any] | None = None  # JSON schema of the answers; None: an answer is one of a few texts
    snapshot: str = ""  # digest of what is learned from
    rejected: float = REJECTED
    conditions: tuple[str, ...] = ()  # under which alone the student may serve
    obligations: tuple[str, ...] = ()


class Trained(msgspec.Struct, frozen=True):
    """A student, and how it did on each lesson while that was held back."""

    student: Student
    unseen: Mapping[str, Said]  # by lesson
    accuracy: float  # share of the unseen lessons that it answered alike, weighed
    dropped: Mapping[str, str]  # lessons that teach nothing, and why


def train(
    lessons: Sequence[Lesson], teacher: Teacher, encode: Encode | None = None, encoder: str | None = None
) -> Trained:
    """Train on lessons; with `encode`, whose digest is `encoder`, on vectors in place of runs. EvidenceError.

    Lessons that are nearly the same must share a fold, so their ids should begin alike; see `fold_of`.
    """
    with threadpool_limits(1):  # so that sums are added in the same order
        sorted_ = sort(lessons, fields_of(teacher.schema))
        return _Training(sorted_, teacher, encode, encoder).done()


class _Training:
    def __init__(self, taught: Sorted, teacher: Teacher, encode: Encode | None, encoder: str | None) -> None:
        self._taught, self._teacher, self._encode, self._encoder = taught, teacher, encode, encoder
        self._texts = [each.text for each in taught.lessons]
        self._weights = np.array([each.weighs for each in taught.lessons])
        self._choices = [(at, field) for at, field in enumerate(taught.fields) if field.copies is None]
        self._copies = [(at, field) for at, field in enumerate(taught.fields) if field.copies is not None]
        self._named = [
            (at, number, name)
            for at, field in self._choices
            for number, value in enumerate(field.values)
            if (name := _spelled(value)) is not None
        ]
        texts = self._texts + [name for _, _, name in self._named]
        self._vocabularies: tuple[Any, ...] = ()
        if encode is None:
            least = 1 if len(texts) <= _FEW else 2
            self._vocabularies = tuple(vocabulary_of(texts, kind, least) for kind in KINDS)
            self._rows: Any = _matrix(Features(self._vocabularies), texts)
        else:
            self._rows = np.stack([encode(text) for text in texts]).astype(np.float64)
        self._space = Space(self._rows)
        self._labels = {at: self._labels_of(at, field) for at, field in self._choices}

    def done(self) -> Trained:
        count = len(self._texts)
        folds = np.array([fold_of(each.text) for each in self._taught.lessons])
        everything = np.arange(count)
        solutions = {at: self._fit(at, field, everything) for at, field in self._choices}
        student = self._student(solutions, Calibration())
        said: dict[int, Said] = {}
        strangeness = np.zeros(count)
        for each in np.unique(folds):
            learnt, left = np.flatnonzero(folds != each), np.flatnonzero(folds == each)
            if not len(learnt):
                continue
            held = {at: self._fit(at, field, learnt) for at, field in self._choices}
            without = self._student(held, Calibration(), learnt)
            for row, logits in zip(left, self._logits(held, left), strict=True):
                said[int(row)] = without.from_logits(logits, self._texts[row])
                strangeness[row] = without.strangeness(logits)
        right = np.array([self._is_right(row, said[row]) for row in sorted(said)], float)
        raw = np.array([said[row].confidence for row in sorted(said)])
        seen = np.array(sorted(said), np.int64)
        calibration = _calibrated(raw, right, self._weights[seen], strangeness[seen], self._teacher.rejected)
        student = self._student(solutions, calibration)
        unseen = {
            self._taught.lessons[row].id: msgspec.structs.replace(
                each,
                confidence=0.0 if strangeness[row] > calibration.strange else calibration.chance(each.confidence),
                strange=bool(strangeness[row] > calibration.strange),
            )
            for row, each in said.items()
        }
        accuracy = float(np.average(right, weights=self._weights[seen])) if len(seen) else 0.0
        return Trained(student, unseen, accuracy, self._taught.dropped)

    def _fit(self, at: int, field: Field, learnt: Rows) -> tuple[Floats, Floats]:
        """Fit one choice on some of the lessons, and on the names of its values."""
        labels = self._labels[at]
        rows = np.concatenate([learnt, np.flatnonzero(labels[len(self._texts) :] >= 0) + len(self._texts)])
        weights = np.concatenate([self._weights[learnt], np.full(len(rows) - len(learnt), _NAMED)])
        return fit(self._space.turned[rows], labels[rows], weights, len(field.values), _LOOSENESS)

    def _logits(self, solutions: Mapping[int, tuple[Floats, Floats]], rows: Rows) -> Floats:
        turned = self._space.turned[rows]
        parts = [np.asarray(turned @ weights + bias) for weights, bias in solutions.values()]
        return np.hstack(parts) if parts else np.zeros((len(rows), 0))

    def _student(
        self, solutions: Mapping[int, tuple[Floats, Floats]], calibration: Calibration, learnt: Rows | None = None
    ) -> Student:
        fields: list[Choice | Copy] = []
        start = 0
        for at, field in enumerate(self._taught.fields):
            if field.copies is None:
                fields.append(Choice(field.name, field.values, start))
                start += len(field.values)
            else:
                rows = range(len(self._texts)) if learnt is None else learnt.tolist()
                examples = [(self._texts[row], self._taught.values[row][at], self._weights[row]) for row in rows]
                fields.append(Copy(str(field.name), learn_copier(field.copies, examples)))
        facts = Facts(
            task=self._teacher.task,
            rung="linear" if self._encode is None else "encoder",
            fields=tuple(fields),
            calibration=calibration,
            encoder=self._encoder,
            snapshot=self._teacher.snapshot,
            conditions=self._teacher.conditions,
            obligations=self._teacher.obligations,
        )
        reads = self._vocabularies if self._encode is None else self._encode
        if learnt is not None:  # its sums are made here
            return Student(facts, np.zeros((0, start), np.float32), np.zeros(start, np.float32), ())
        parts = [self._space.back(weights) for weights, _ in solutions.values()]
        biases = [bias.astype(np.float32) for _, bias in solutions.values()]
        width = self._rows.shape[1]
        weights = np.hstack(parts) if parts else np.zeros((width, 0), np.float32)
        return Student(facts, weights, np.concatenate(biases) if biases else np.zeros(0, np.float32), reads)

    def _labels_of(self, at: int, field: Field) -> Rows:
        """The number of each lesson's value; behind them those of the names, -1 where they are of another field."""
        numbers = {_key(value): number for number, value in enumerate(field.values)}
        own = [numbers[_key(values[at])] for values in self._taught.values]
        return np.array(own + [number if of == at else -1 for of, number, _ in self._named], np.int64)

    def _is_right(self, row: int, said: Said) -> bool:
        values = self._taught.values[row]
        fields = self._taught.fields
        if len(fields) == 1 and fields[0].name is None:
            return said.content == str(values[0])
        return bool(msgspec.json.decode(said.content) == {f.name: v for f, v in zip(fields, values, strict=True)})


def fold_of(text: str) -> int:
    """In which of the folds a lesson is, by its text: for ever the same."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[0] % _FOLDS


def _key(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _spelled(value: Any) -> str | None:
    """The words of a value's name, where it has any: "card_arrival" says something, "77" does not."""
    if not isinstance(value, str):
        return None
    words = "".join(each if each.isalpha() else " " for each in value).split()
    return " ".join(words) if sum(map(len, words)) > 2 else None


def _matrix(features: Features, texts: Sequence[str]) -> sparse.csr_matrix:
    places, values, starts = [], [], [0]
    for text in texts:
        there, found = features.of(text)
        places += there
        values += found
        starts.append(len(places))
    return sparse.csr_matrix((values, places, starts), shape=(len(texts), max(1, features.size)))


def _calibrated(raw: Floats, right: Floats, weights: Floats, strangeness: Floats, rejected: float) -> Calibration:
    """Fit the chance of being right to the unseen rows, and find from where on a request is strange."""
    strange = float(np.quantile(strangeness, 1.0 - rejected)) if len(raw) >= _ENOUGH else math.inf
    if len(raw) < _ENOUGH or right.min() == right.max():
        return Calibration(strange=strange)
    raw = raw.clip(1e-9, 1 - 1e-9)
    logits = np.log(raw / (1 - raw))[:, None]
    model = LogisticRegression(C=10.0).fit(logits, right.astype(int), sample_weight=weights)
    slope, offset = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope < _LEAST_SLOPE:  # what looks surer is never less sure; on average it is to be right all the same
        slope, low, high = _LEAST_SLOPE, -50.0, 50.0
        for _ in range(60):
            offset = (low + high) / 2
            mean = float(np.average(1 / (1 + np.exp(-(slope * logits[:, 0] + offset))), weights=weights))
            low, high = (offset, high) if mean < np.average(right, weights=weights) else (low, offset)
    return Calibration(slope, offset, strange)
