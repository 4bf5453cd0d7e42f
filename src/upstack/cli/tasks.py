"""`upstack tasks`: the order in which each task asks its routes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from upstack.application.gateway.state import build_state
from upstack.cli.options import read
from upstack.cli.output import Name, new_table, print_json, say, show
from upstack.core.types import State, Task
from upstack.inference.router import permits

NOTHING_CERTIFIED = "nothing certified"


def list_tasks(config: Path | None, *, as_json: bool) -> None:
    """Print the tasks and what each does."""
    state = build_state(read(config), os.environ, 1)
    if as_json:
        print_json({"tasks": [_task(task, state) for task in state.tasks.values()]})
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
            Name(f"task/{task.name}"), Name(*steps), Name(task.reference or "none"), task.strategy, NOTHING_CERTIFIED
        )
    show(lines)


def _task(task: Task, state: State) -> dict[str, Any]:
    return {
        "name": task.name,
        "model": f"task/{task.name}",
        "order": list(task.routes),
        "forbidden": [name for name in task.routes if not permits(task, state.routes[name])],
        "reference": task.reference,
        "strategy": task.strategy,
        "capture": task.capture,
        "residency": list(task.residency),
        "certified": False,
        "evidence": NOTHING_CERTIFIED,
    }
