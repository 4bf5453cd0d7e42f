"""`upstack keys ...`: parameters and help of what is done with virtual keys."""
# ruff: noqa: PLC0415 - what a command does is loaded when it is called

from __future__ import annotations

from typing import Annotated, Literal

import typer

from upstack.cli.options import ConfigOption, JsonOption, LedgerOption

app = typer.Typer(no_args_is_help=True, help="Make, change and list virtual keys.")

_WRITE = "Put the table at the end of the configuration."


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="What the key is called in receipts and limits.")],
    role: Annotated[
        Literal["app", "feedback", "reviewer", "admin"],
        typer.Option(
            help="app asks models, feedback tells outcomes of any receipt, a reviewer's labels are evidence, admin sees"
            " /admin and /metrics."
        ),
    ] = "app",
    team: Annotated[str | None, typer.Option(help="The team it belongs to.")] = None,
    budget_day: Annotated[float | None, typer.Option(help="The most it may spend in a day, USD.", min=0)] = None,
    requests_per_minute: Annotated[int | None, typer.Option(help="The most it may ask.", min=0)] = None,
    config: ConfigOption = None,
    *,
    write: Annotated[bool, typer.Option("--write", help=_WRITE)] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown this once; the configuration takes its hash alone."""
    from upstack.cli.keymaking import make

    make(name, role, team, budget_day, requests_per_minute, config, write=write, as_json=as_json)


@app.command()
def rotate(
    name: Annotated[str, typer.Argument(help="The key to be replaced.")],
    overlap: Annotated[float, typer.Option(help="Hours for which the old key is still good.", min=0)] = 24.0,
    config: ConfigOption = None,
    *,
    write: Annotated[bool, typer.Option("--write", help="Change the table in the configuration.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a new key in the place of one, which is still good for a while."""
    from upstack.cli.keymaking import replace_key

    replace_key(name, overlap, config, write=write, as_json=as_json)


@app.command("list")
def list_all(config: ConfigOption = None, ledger: LedgerOption = None, *, as_json: JsonOption = False) -> None:
    """List the keys with their limits, and what each has spent."""
    from upstack.cli.keymaking import show_keys

    show_keys(config, ledger, as_json=as_json)
