"""What a student learns from, and what its answers look like. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from upstack.core.errors import EvidenceError

COPY = "x-upstack-copy"  # of a property: a pattern; the value is a piece of the request that it finds
_MOST_CLASSES = 1_000
_FEWEST_EACH = 1.5  # rows a class, on average, without which answers do not repeat
_HUMAN = 2.0  # what a row that a person labelled weighs; a teacher's weighs 1


class Lesson(msgspec.Struct, frozen=True):
    """One request and its answer."""

    id: str
    text: str  # what a student reads of the request
    answer: str
    human: bool = False  # a person said so, not the teacher
    weight: float = 1.0

    @property
    def weighs(self) -> float:
        """What it counts in training."""
        return self.weight * (_HUMAN if self.human else 1.0)


class Field(msgspec.Struct, frozen=True):
    """A part of the answer. `name` None: all of it."""

    name: str | None
    values: tuple[Any, ...] = ()  # that it may take; empty: those that occur
    copies: str | None = None  # a pattern


def fields_of(schema: Mapping[str, Any] | None) -> tuple[Field, ...]:
    """Say what a student has to answer; `schema`: the task's JSON schema. EvidenceError where none could learn it."""
    if schema is None:
        return (Field(None),)
    properties = schema.get("properties")
    if schema.get("type", "object") != "object" or not isinstance(properties, dict) or not properties:
        raise EvidenceError("the schema describes no object with properties: a student has nothing to choose from")
    return tuple(_field(name, said) for name, said in properties.items())


def _field(name: str, said: Any) -> Field:
    if isinstance(said, dict):
        if COPY in said:
            try:
                re.compile(str(said[COPY]))
            except re.error as error:
                raise EvidenceError(f"the schema's {name}.{COPY} is no pattern: {error}") from None
            return Field(name, copies=str(said[COPY]))
        if isinstance(said.get("enum"), list) and said["enum"]:
            return Field(name, tuple(said["enum"]))
        if "const" in said:
            return Field(name, (said["const"],))
        if said.get("type") == "boolean":
            return Field(name, (False, True))
    raise EvidenceError(
        f'the schema leaves {name} open: a student chooses among an "enum", or copies what an "{COPY}" pattern finds'
    )


class Sorted(msgspec.Struct, frozen=True):
    """Lessons whose answers fit, with the values of their fields, and why the others do not."""

    lessons: tuple[Lesson, ...]
    values: tuple[tuple[Any, ...], ...]  # of each lesson: a value for each field
    fields: tuple[Field, ...]  # with all values that occur
    dropped: Mapping[str, str]  # id -> why


def sort(lessons: Sequence[Lesson], fields: Sequence[Field]) -> Sorted:
    """Take answers apart. EvidenceError where nothing is left to learn, or it is the same for all."""
    if not lessons:
        raise EvidenceError("there is nothing to learn from yet")
    kept: list[Lesson] = []
    values: list[tuple[Any, ...]] = []
    dropped: dict[str, str] = {}
    for lesson in lessons:
        try:
            values.append(_values(lesson, fields))
            kept.append(lesson)
        except ValueError as error:
            dropped[lesson.id] = str(error)
    if not kept:
        raise EvidenceError(f"no answer fits the schema: {next(iter(dropped.values()))}")
    whole = tuple(_with_values(field, [each[at] for each in values]) for at, field in enumerate(fields))
    if all(len(field.values) < 2 and field.copies is None for field in whole):
        raise EvidenceError(f"all {len(kept)} answers are the same: there is nothing to tell apart yet")
    return Sorted(tuple(kept), tuple(values), whole, dropped)


def _values(lesson: Lesson, fields: Sequence[Field]) -> tuple[Any, ...]:
    if len(fields) == 1 and fields[0].name is None:
        answer = lesson.answer.strip()
        if not answer:
            raise ValueError("its answer is empty")
        return (answer,)
    try:
        said = msgspec.json.decode(lesson.answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("its answer is no JSON") from None
    if not isinstance(said, dict):
        raise ValueError("its answer is no JSON object")  # noqa: TRY004 - of a row, not of a caller
    found = []
    for field in fields:
        value = said.get(str(field.name))
        if field.copies is None and not any(_same(value, each) for each in field.values):
            raise ValueError(f"its {field.name} is none of the schema's values")
        if field.copies is not None and value is not None and (not isinstance(value, str) or value not in lesson.text):
            raise ValueError(f"its {field.name} does not stand in the request")
        found.append(value)
    return tuple(found)


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _with_values(field: Field, seen: Sequence[Any]) -> Field:
    if field.copies is not None:
        return field
    if field.values:
        occurring = tuple(each for each in field.values if any(_same(each, other) for other in seen))
        return msgspec.structs.replace(field, values=occurring)
    counts = Counter(seen)
    if len(counts) > _MOST_CLASSES or len(counts) * _FEWEST_EACH > len(seen) > 10:
        raise EvidenceError(
            f"{len(seen)} answers are {len(counts)} different ones: a student chooses among answers that come again"
        )
    return msgspec.structs.replace(field, values=tuple(sorted(counts)))
