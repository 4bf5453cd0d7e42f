"""What a configuration says of tasks that learn, and the students of a ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from upstack.core.config import Config
from upstack.core.errors import EvidenceError
from upstack.core.store.students import model_of
from upstack.core.types import State
from upstack.foundation.students.student import Student, load

if TYPE_CHECKING:
    from upstack.foundation.students.student import Encode


class Wish(msgspec.Struct, frozen=True):
    """What the loop of a task is to do."""

    task: str
    reference: tuple[str, ...]  # names that the teacher's route goes by
    schema: Mapping[str, Any] | None = None
    fewest: int = 50  # rows for a first student
    growth: float = 1.3  # of what there is to learn, for the next


def wishes_of(config: Config, state: State) -> dict[str, Wish]:
    """What the loops of all tasks that learn are to do."""
    found = {}
    for name, task in state.tasks.items():
        if task.learns and task.reference is not None:
            route = state.routes[task.reference]
            names = dict.fromkeys((route.name, f"{route.provider.name}/{route.model}"))
            schema = None if task.schema is None else msgspec.json.decode(task.schema)
            found[name] = Wish(name, tuple(names), schema, config.loop.fewest, config.loop.growth)
    return found


def load_student(place: str, student: str, encoder: Callable[[str], Encode]) -> Student:
    """Read a student from a ledger. EvidenceError where it is not there any more, ConfigError where it cannot serve."""
    model = model_of(place, student)
    if model is None:
        raise EvidenceError(f"the student {student} is not there any more")
    return load(model, f"student {student}", encoder)
