"""`upstack tasks ...`: parameters and help of what is shown of tasks."""
# ruff: noqa: PLC0415 - what a command does is loaded when it is called

from __future__ import annotations

from typing import Annotated

import typer

from upstack.cli.options import ConfigOption, JsonOption, LedgerOption, ReplayedOption

app = typer.Typer(help="Show tasks: their routes, what is proved of these, and what would prove more.")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="The task.")]


@app.callback(invoke_without_command=True)
def list_all(context: typer.Context, config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """List the tasks with the order in which their routes are asked."""
    if context.invoked_subcommand is None:
        from upstack.cli.tasks import list_tasks

        list_tasks(config, as_json=as_json)


@app.command()
def show(
    name: _Name,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    replay: ReplayedOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what serves a task, every plan that may, what the checks say of each, and what would change it."""
    from upstack.cli.proving import show_task

    show_task(name, ledger, config, replay, acts=False, as_json=as_json)


@app.command()
def labels(
    name: _Name,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    replay: ReplayedOption = None,
    limit: Annotated[int, typer.Option(help="How many are shown.", min=1)] = 10,
    *,
    as_json: JsonOption = False,
) -> None:
    """List the checks in which routes disagree and nobody has said what is right. The answers are in no order.

    `upstack feedback ID --demonstration TEXT` says what would have been right.
    """
    from upstack.cli.labelling import show_labels

    show_labels(name, ledger, config, replay, limit, as_json=as_json)
