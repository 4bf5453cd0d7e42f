"""`upstack tasks`: the order in which each task asks its routes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upstack.application.gateway.state import build_state
from upstack.cli.options import read
from upstack.cli.output import Name, new_table, print_json, say, show
from upstack.core.config import Config, ledger_place
from upstack.core.errors import UpstackError
from upstack.core.store.standings import standings
from upstack.core.types import Proved, State, Task
from upstack.inference.router import permits

NOTHING_CERTIFIED = "nothing certified"


def list_tasks(config: Path | None, *, as_json: bool) -> None:
    """Print the tasks and what each does."""
    wanted = read(config)
    state = build_state(wanted, os.environ, 1)
    proved = _proved(wanted)
    if as_json:
        print_json({"tasks": [_task(task, state, proved) for task in state.tasks.values()]})
        return
    if not state.tasks:
        say("No task is configured. A table [tasks.NAME] in upstack.toml names its candidates and reference.")
        return
    lines = new_table("Model", "Asked in this order", "Reference", "Strategy", "Evidence")
    for task in state.tasks.values():
        forbidden = {name for name in task.routes if not permits(task, state.routes[name])}
        order = [f"{name} (residency forbids it)" if name in forbidden else name for name in task.routes]
        steps = [f"{number}. {name}" for number, name in enumerate(order, 1)]
        lines.add_row(
            Name(f"task/{task.name}"),
            Name(*steps),
            Name(task.reference or "none"),
            task.strategy,
            _evidence(task, proved),
        )
    show(lines)


def _proved(config: Config) -> Mapping[str, Proved]:
    """What the ledger says is certified, where there is one."""
    with contextlib.suppress(UpstackError):
        return standings(ledger_place(config.server.ledger), time.time())
    return {}


def _evidence(task: Task, proved: Mapping[str, Proved]) -> str:
    words = proved[task.name].words if task.terms is not None and task.name in proved else ""
    return f"serves {words}" if words else NOTHING_CERTIFIED


def _task(task: Task, state: State, proved: Mapping[str, Proved]) -> dict[str, Any]:
    return {
        "name": task.name,
        "model": f"task/{task.name}",
        "order": list(task.routes),
        "forbidden": [name for name in task.routes if not permits(task, state.routes[name])],
        "reference": task.reference,
        "strategy": task.strategy,
        "capture": task.capture,
        "residency": list(task.residency),
        "certified": _evidence(task, proved) != NOTHING_CERTIFIED,
        "evidence": _evidence(task, proved),
    }
