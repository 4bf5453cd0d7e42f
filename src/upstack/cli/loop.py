"""`upstack loop ...`: parameters and help of the closed loop."""
# ruff: noqa: PLC0415 - what a command does is loaded when it is called

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from upstack.cli.options import ConfigOption, JsonOption, LedgerOption

app = typer.Typer(help="Turn traffic and outcomes into a small model of your own, prove it, serve it, watch it.")


@app.command()
def simulate(
    traffic: Annotated[Path, typer.Argument(help="Recorded traffic (.jsonl or .jsonl.gz), one task of it.")],
    reference: Annotated[str, typer.Option(help="The route whose answers are learned from, and measured against.")],
    *,
    start: Annotated[Path | None, typer.Option(help="Labelled rows known beforehand: traffic with truths.")] = None,
    labels: Annotated[int, typer.Option(help="How many answers people may be asked for.", min=0)] = 0,
    max_loss: Annotated[float | None, typer.Option(help="Excess loss that is tolerated.", show_default="0.02")] = None,
    confidence: Annotated[float | None, typer.Option(help="How sure to be of that.", show_default="0.95")] = None,
    uncertified: Annotated[
        bool, typer.Option("--uncertified", help="Let a student serve wherever it is sure, without proof.")
    ] = False,
    threshold: Annotated[float | None, typer.Option(help="With --uncertified: how sure.", show_default="0.5")] = None,
    task: Annotated[str | None, typer.Option(help="Of the file, where it holds several.")] = None,
    grader: Annotated[str | None, typer.Option(help="exact, contains, json or module:function.")] = None,
    schema: Annotated[Path | None, typer.Option(help="JSON schema of the answers.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="Folder of a sentence encoder (BERT, safetensors).")] = None,
    prices: Annotated[Path | None, typer.Option(help="Prices; default: STEM.prices.toml beside it.")] = None,
    shadow_rate: Annotated[float, typer.Option(help="Chance of a check once a student serves.")] = 0.05,
    seed: Annotated[int, typer.Option(help="In which order requests come in.")] = 0,
    ledger: Annotated[Path | None, typer.Option(help="Keep the ledger; one that was cut goes on.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Play the whole loop over recorded traffic, request by request, in accelerated time."""
    from upstack.cli.looping import Given
    from upstack.cli.looping import simulate as run

    given = Given(
        traffic,
        reference,
        start,
        labels,
        max_loss,
        confidence,
        threshold,
        task,
        grader,
        schema,
        encoder,
        prices,
        shadow_rate,
        seed,
        ledger,
        config,
        uncertified,
    )
    run(given, as_json=as_json)


@app.command(name="run")
def run_loop(
    task: Annotated[str | None, typer.Argument(help="The task; default: all that learn.")] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="Go round once, and say how it stands.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Go round the loop until Ctrl-C, where no gateway does so by itself; it may be killed at any moment."""
    from upstack.cli.looping import run_rounds

    run_rounds(task, ledger, config, once=once, as_json=as_json)
