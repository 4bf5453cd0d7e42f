"""`upstack data ...` and `upstack rights ...`: parameters and help."""
# ruff: noqa: PLC0415 - what a command does is loaded when it is called

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upstack.cli.options import ConfigOption, JsonOption, LedgerOption

app = typer.Typer(help="Write datasets of what was captured, and compare what was frozen.")
rights_app = typer.Typer(help="Say what may be done with rows and students, by whose terms.")

_Task = Annotated[str, typer.Argument(metavar="TASK", help="The task.")]


@app.command()
def export(
    task: _Task,
    path: Annotated[Path, typer.Argument(help="The file to write; a data card is written beside it.")],
    form: Annotated[str, typer.Option("--format", help="openai-jsonl, preferences or parquet.")] = "openai-jsonl",
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    mask: Annotated[bool, typer.Option("--mask", help="Mask e-mail addresses, phones, cards and so on.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write what may leave of a task, with a card that says what it is and what is owed. The rest is withheld."""
    from upstack.cli.datasets import export as run

    run(task, form, path, ledger, config, masked=mask, as_json=as_json)


@app.command()
def snapshots(
    task: _Task, ledger: LedgerOption = None, config: ConfigOption = None, *, as_json: JsonOption = False
) -> None:
    """List the frozen sets that students of a task learned from, and what was exported."""
    from upstack.cli.datasets import snapshots as run

    run(task, ledger, config, as_json=as_json)


@app.command()
def diff(
    task: _Task,
    one: Annotated[str, typer.Argument(metavar="A", help="A snapshot, or how it begins.")],
    other: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say which rows came, which went and why, and which say something else."""
    from upstack.cli.datasets import diff as run

    run(task, one, other, ledger, config, as_json=as_json)


@rights_app.command()
def why(
    wanted: Annotated[str, typer.Argument(metavar="ROW|STUDENT", help="A receipt's id, or a student's.")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Explain what may be done with a row or a student, under which terms, and what is owed. Not legal advice."""
    from upstack.cli.datasets import why as run

    run(wanted, ledger, config, as_json=as_json)
