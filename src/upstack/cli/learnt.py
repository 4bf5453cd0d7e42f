"""A task that learns, as commands look at it: its loop, which changes nothing, and its rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from upstack.application.gateway.setup import state_of
from upstack.application.learning import Wish, wishes_of
from upstack.cli.options import keystore_of, ledger_of, look_here, read
from upstack.core.config import Config
from upstack.core.errors import ConfigError
from upstack.core.types import Terms

if TYPE_CHECKING:
    from upstack.application.data.capture import Captured
    from upstack.application.loop import Loop


class Seen(NamedTuple):
    """What a command looks at."""

    place: str
    config: Config
    loop: Loop
    rows: dict[str, Captured]  # by id, in order


def look_at(task: str, ledger: str | None, path: Path | None) -> Seen:
    """Look at a task. ConfigError where it learns nothing."""
    from upstack.application.data.capture import capture  # noqa: PLC0415 - numpy is an extra's
    from upstack.application.loop import loop_of  # noqa: PLC0415

    look_here()
    config = read(path)
    wish, terms = learning(config, task)
    place, keystore = ledger_of(ledger, path), keystore_of(ledger, path)
    rows = {row.id: row for row in capture(place, task, wish.reference, keystore)}
    loop = loop_of(place, wish, terms, config.loop, config.rights, keystore, acts=False)
    return Seen(place, config, loop, rows)


def learning(config: Config, task: str) -> tuple[Wish, Terms]:
    """What a task is to learn. ConfigError where that is nothing."""
    state = state_of(config, 1, None)
    wish = wishes_of(config, state).get(task)
    terms = state.tasks[task].terms if task in state.tasks else None
    if wish is None or terms is None:
        raise ConfigError(f'Task "{task}" learns nothing: give it the candidate "student/{task}" and a strategy')
    return wish, terms
