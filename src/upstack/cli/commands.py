"""Every command's parameters and help. What a command does is in a file of its own, loaded when the command is called.

So `upstack --help` loads no server, no HTTP client and no price list.
"""
# ruff: noqa: PLC0415 - that is what the imports inside functions are for

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from upstack import __version__
from upstack.cli.data import app as data_app
from upstack.cli.data import rights_app
from upstack.cli.keys import app as keys_app
from upstack.cli.ledger import app as ledger_app
from upstack.cli.loop import app as loop_app
from upstack.cli.options import ConfigOption, JsonOption, LedgerOption, ReplayedOption, UrlOption, config_path
from upstack.cli.tasking import app as tasks_app

app = typer.Typer(
    name="upstack",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    suggest_commands=False,  # click does
    help="One endpoint in front of every model you can get, with a receipt for every answer.",
)
app.add_typer(ledger_app, name="ledger")
app.add_typer(keys_app, name="keys")
app.add_typer(tasks_app, name="tasks")
app.add_typer(loop_app, name="loop")
app.add_typer(data_app, name="data")
app.add_typer(rights_app, name="rights")


@app.callback(invoke_without_command=True)
def root(*, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Take the options that stand before a command."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; loopback only.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = None,
    ledger: Annotated[str | None, typer.Option(help="The ledger: a file, or a PostgreSQL URL.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that serve.", min=1, max=256)] = None,
    replay: Annotated[Path | None, typer.Option(help="Answer from recorded traffic (.jsonl or .jsonl.gz).")] = None,
    speed: Annotated[float, typer.Option(help="Of replayed latency: 0 none, 1 as recorded.", min=0)] = 0.0,
    prices: Annotated[Path | None, typer.Option(help="A TOML of further prices.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; with --json one line of JSON says where it listens."""
    from upstack.application.gateway.setup import Options
    from upstack.cli.serving import run

    flags: dict[str, Any] = {"host": host, "port": port, "ledger": ledger, "workers": workers}
    given = {name: value for name, value in flags.items() if value is not None}
    run(Options(config_path(config), replay, speed, prices, given), as_json=as_json)


@app.command()
def ask(
    question: str,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="task/NAME, a route or provider/model; default: UPSTACK_MODEL, else the only one."
        ),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="A system message before it.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Ask a model through the gateway and see the answer as it comes.

    QUESTION is the text to ask, in quotes; "-" reads it from standard input.
    Where no gateway runs, one runs for this call, with the same configuration and ledger.
    """
    from upstack.cli.asking import Question, run

    run(Question(question, model, system, as_json), url, config)


@app.command()
def why(
    receipt: Annotated[str, typer.Argument(metavar="ID")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Explain a receipt: which route answered, why, at what cost. Works while the gateway serves.

    ID is a receipt's id, or "last" for the newest.
    """
    from upstack.cli.explaining import run

    run(receipt, ledger, config, as_json=as_json)


@app.command()
def feedback(
    receipt: Annotated[str | None, typer.Argument(metavar="ID", help='A receipt, or "last" for the newest.')] = None,
    *,
    episode: Annotated[str | None, typer.Option(help="An episode, in place of a receipt.")] = None,
    value: Annotated[str | None, typer.Option(help="true, false, or how good it was, in 0 to 1.")] = None,
    comment: Annotated[str | None, typer.Option(help="A remark.")] = None,
    demonstration: Annotated[
        str | None, typer.Option(metavar="TEXT", help='The right answer; "@FILE" and "-" read it.')
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of what was looked at. Default: outcome.")] = None,
    observed_at: Annotated[str | None, typer.Option(help="When it was so, as 2026-01-31T12:00:00Z.")] = None,
    source: Annotated[str | None, typer.Option(help="Who or what says so. Default: the key's name.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Told again under it, it is there once.")] = None,
    url: UrlOption = None,
    config: ConfigOption = None,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take back what was told of that name.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what became of an answer. A later outcome of the same name supersedes, and history is kept.

    Where no gateway runs, one runs for this call, with the same configuration and ledger.
    """
    from upstack.cli.telling import Told, run

    told = Told(receipt, episode, name, value, comment, demonstration, observed_at, source, idempotency_key, withdraw)
    run(told, url, config, as_json=as_json)


@app.command()
def spend(
    by: Annotated[
        list[str] | None,
        typer.Option(help="day, key, team, task, route, provider or model; several make finer rows. Default: task."),
    ] = None,
    since: Annotated[str | None, typer.Option(help="The first day (UTC), as 2026-01-31.")] = None,
    until: Annotated[str | None, typer.Option(help="The first day not to count any more.")] = None,
    invoice: Annotated[Path | None, typer.Option(help="A provider's invoice (CSV) to compare with.")] = None,
    provider: Annotated[str | None, typer.Option(help="Whose invoice it is.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="date=HEADING, model=HEADING or cost=HEADING of an unusual invoice.")
    ] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say what was spent, on what; with --invoice where the provider's bill differs from it."""
    from upstack.cli.spending import Wanted, run

    wanted = Wanted(tuple(by or ["task"]), since, until, invoice, provider, tuple(column or []))
    run(wanted, ledger, config, as_json=as_json)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that is not there yet.")],
    wanted: Annotated[
        str, typer.Option("--format", help="jsonl, which a ledger can be filled from; parquet, for analysis; or both.")
    ] = "jsonl",
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    everything: Annotated[bool, typer.Option("--everything", help="Every table of the ledger.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the whole ledger into DIR: open formats, a manifest with the hash of each file. Never a key.

    It is one moment of the ledger, and works while the gateway serves. Requests and answers that were kept are in it.
    """
    from upstack.cli.exporting import run

    if not everything:
        raise typer.BadParameter("say --everything: all of the ledger, with the requests and answers that were kept")
    run(folder, wanted, ledger, config, as_json=as_json)


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help='A folder of `upstack export`, or a file (.gz too; "-": stdin).')
    ],
    wanted: Annotated[
        str | None,
        typer.Option(
            "--format", help="Of a file: traffic, openai-jsonl, litellm, langfuse or otlp-json. Default: it is guessed."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="The task that a file's requests belong to.")] = None,
    rejects: Annotated[Path | None, typer.Option(help="Write the lines that could not be taken to this file.")] = None,
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Take in what another ledger or system recorded. The same again adds nothing.

    A folder fills an empty ledger, a file or PostgreSQL: every hash as it was, all or nothing.
    A file adds a receipt for each request in it; bad lines are counted, named and left out.
    Exit code 1 where not one line could be taken.
    """
    from upstack.cli.importing import Wanted, run

    run(Wanted(source, wanted, task, rejects), ledger, config, as_json=as_json)


@app.command()
def routes(config: ConfigOption = None, url: UrlOption = None, *, as_json: JsonOption = False) -> None:
    """List the routes and the providers found, with prices and, where a gateway runs, health."""
    from upstack.cli.routes import list_routes

    list_routes(config, url, as_json=as_json)


@app.command()
def certify(
    task: Annotated[str, typer.Argument(metavar="NAME", help="The task.")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    replay: ReplayedOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Look at a task's checks now, and do what follows: certify, or revoke. A gateway that serves does so by itself."""
    from upstack.cli.proving import show_task

    show_task(task, ledger, config, replay, acts=True, as_json=as_json)


@app.command()
def reload(url: UrlOption = None, config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Have the running gateway read its configuration again; a broken one is refused and the old one stays."""
    from upstack.cli.reloading import run

    run(url, config, as_json=as_json)


@app.command()
def doctor(
    config: ConfigOption = None,
    *,
    offline: Annotated[bool, typer.Option("--offline", help="Make no connection.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what was found: keys, routes, prices, ledger, and settings that lead past the gateway."""
    from upstack.cli.examining import run

    run(config, offline=offline, as_json=as_json)


@app.command()
def demo(
    traffic: Annotated[
        Path | None, typer.Option(help="Recorded traffic (.jsonl or .jsonl.gz) in place of simulated.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="Prices for it; default: STEM.prices.toml beside it, else genai-prices.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="The route to compare with; default: the dearest.")] = None,
    candidate: Annotated[str | None, typer.Option(help="The route that answers; default: the cheapest.")] = None,
    requests: Annotated[
        int | None, typer.Option(help="How many; default: 300 simulated ones, of a file up to 2,000.", min=1)
    ] = None,
    port: Annotated[int, typer.Option(help="The gateway's port; 0 picks a free one.", min=0, max=65535)] = 0,
    ledger: Annotated[Path | None, typer.Option(help="Keep the receipts in this file.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Do the main job in under a minute: a real gateway, traffic through it, what it saved, at what loss.

    Needs no key and no network. In a terminal the gateway stays up until Ctrl-C.
    """
    from upstack.application.demo.scenario import Wanted
    from upstack.cli.demonstrating import run

    run(Wanted(traffic, prices, reference, candidate, requests, port, ledger), as_json=as_json)


@app.command()
def backtest(
    traffic: Annotated[
        Path | None, typer.Argument(help="Recorded traffic (.jsonl or .jsonl.gz); default: the checks in the ledger.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="The route that losses are measured against.")] = None,
    candidates: Annotated[str | None, typer.Option(help="Cheaper ones, with commas between; default: all.")] = None,
    *,
    strategy: Annotated[str, typer.Option(help="auto, single, agree, cascade, confidence or precall.")] = "auto",
    grader: Annotated[
        str | None, typer.Option(help="exact, contains, json or module:function; default: what the losses point to.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Of the file, and of the configuration where it is there.")] = None,
    since: Annotated[str | None, typer.Option(help="Of the ledger: 7d, 12h, or a day such as 2026-01-31.")] = None,
    ledger: LedgerOption = None,
    max_loss: Annotated[float | None, typer.Option(help="Excess loss that is tolerated.", show_default="0.02")] = None,
    confidence: Annotated[float | None, typer.Option(help="How sure to be of that.", show_default="0.95")] = None,
    prices: Annotated[
        Path | None, typer.Option(help="Prices; default: STEM.prices.toml beside it, configuration, genai-prices.")
    ] = None,
    calibrate: Annotated[float, typer.Option(help="Share of the rows to learn from and to prove by.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Which rows are which.")] = 0,
    plot: Annotated[Path | None, typer.Option(help="Draw cost against loss into this SVG.")] = None,
    config: ConfigOption = None,
    curve: Annotated[bool, typer.Option("--curve", help="CPT50, CPT80 and APGR, out of fold.")] = False,
    uncertified: Annotated[
        bool, typer.Option("--uncertified", help="Take what seems no worse, without proof.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what the cheapest plan that is proved good enough would have cost and lost on recorded traffic."""
    from upstack.cli.backtesting import Given
    from upstack.cli.backtesting import backtest as run

    run(
        Given(
            traffic,
            reference,
            candidates,
            strategy,
            grader,
            task,
            since,
            ledger,
            max_loss,
            confidence,
            prices,
            calibrate,
            seed,
            curve,
            plot,
            uncertified,
            config,
        ),
        as_json=as_json,
    )


@app.command()
def review(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task.")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    url: UrlOption = None,
    limit: Annotated[int, typer.Option(help="How many are asked.", min=1)] = 50,
    queue: Annotated[Literal["evidence", "training"] | None, typer.Option(help="One of the two alone.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Say which answer is right where student and reference differ: by keys alone, without seeing whose it is.

    What is evidence comes in the order of the requests, then what training would gain most from.
    """
    from upstack.cli.reviewing import review as run

    run(task, ledger, config, url, limit, queue, as_json=as_json)


@app.command()
def forget(
    subject: Annotated[str, typer.Option(help="Whom or what it is about, as requests said.")],
    ledger: LedgerOption = None,
    config: ConfigOption = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase a subject: contents and their key, snapshots; students that learned from it are trained anew."""
    from upstack.cli.removing import erase

    erase(subject, None, ledger, config, yes=yes, as_json=as_json)
