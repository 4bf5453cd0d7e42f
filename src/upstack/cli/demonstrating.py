"""`upstack demo`: the main job from end to end, on this machine alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from upstack.application.demo.certified import certify
from upstack.application.demo.gateway import DemoGateway
from upstack.application.demo.ledger import receipts_of
from upstack.application.demo.report import Report, settle
from upstack.application.demo.scenario import TASK, Scenario, Wanted, configuration, prepare
from upstack.application.demo.sending import Sent, load_client, need_client, send_all
from upstack.cli.output import console, print_json, say
from upstack.cli.reporting import as_json as report_as_json
from upstack.cli.reporting import print_report
from upstack.core.errors import UpstackError
from upstack.core.traffic import write_traffic

SERVE = (sys.executable, "-P", "-m", "upstack.cli", "serve")
_SHORT = 120  # characters of a question that still fits on a command line


class Place(msgspec.Struct, frozen=True):
    """Where the demo's files lie."""

    folder: Path
    ledger: Path


def run(wanted: Wanted, *, as_json: bool) -> None:
    """Run the demo and print its report; UpstackError where something does not agree, after the report."""
    began = time.perf_counter()
    need_client()
    with _ends_cleanly(), tempfile.TemporaryDirectory(prefix="upstack-demo-") as folder:
        notes = console(stderr=True)
        with notes.status("reading the traffic") if notes.is_terminal else contextlib.nullcontext():
            scenario = prepare(wanted)
        place = Place(Path(folder), (wanted.ledger or Path(folder) / "demo.db").absolute())
        with _serving(scenario, place, wanted.port) as gateway:
            sent = _send(gateway, scenario)
            if not gateway.running:
                raise UpstackError(f"the gateway ended: {gateway.last_words}")
            report = settle(scenario, sent, receipts_of(place.ledger, [each.receipt for each in sent]))
            report = replace(report, certified=certify(scenario))
            took_s = time.perf_counter() - began
            stays = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
            if as_json:
                print_json(report_as_json(scenario, report, took_s, wanted.ledger))
            else:
                print_report(scenario, report, took_s, wanted.ledger, gateway.url if stays else None)
            _judge(report)
            if stays:
                _stay(gateway, scenario, place, sent)


def _judge(report: Report) -> None:
    if report.faults:
        raise UpstackError(f"the demo does not add up: {'; '.join(report.faults)}")
    if not report.answered:
        raise UpstackError(f"no request was answered: {report.first_error}")


# --- The gateway and what it stands before ---------------------------------------------------------------------------


@contextlib.contextmanager
def _serving(scenario: Scenario, place: Place, port: int) -> Iterator[DemoGateway]:
    """Start the providers and the gateway; all of it is gone afterwards."""
    with contextlib.ExitStack() as stack:
        urls: dict[str, str] = {}
        flags = ["--port", str(port), "--ledger", str(place.ledger)]
        if scenario.file is None:
            from upstack.cli.simulating import provider_of  # noqa: PLC0415 - the fakes, where they are needed

            for name in scenario.prices:
                provider = stack.enter_context(provider_of(name, scenario.rows))
                urls[name.partition("/")[0]] = provider.base_url
        else:
            flags += ["--replay", str(_replayed(scenario, scenario.file, place))]
        if scenario.price_file is not None:
            flags += ["--prices", str(scenario.price_file)]
        config = place.folder / "upstack.toml"
        config.write_text(configuration(scenario, urls), encoding="utf-8")
        gateway = stack.enter_context(DemoGateway([*SERVE, "--config", str(config), *flags]))
        load_client()  # while the gateway starts
        gateway.wait()
        yield gateway


def _replayed(scenario: Scenario, file: Path, place: Place) -> Path:
    """The file itself, or its rows that are sent: answers to repeated prompts take turns, so no others may be there."""
    if scenario.whole:
        return file.absolute()
    chosen = place.folder / "traffic.jsonl"
    write_traffic(chosen, scenario.rows)
    return chosen


def _send(gateway: DemoGateway, scenario: Scenario) -> list[Sent]:
    notes = console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal) as bar:
        task = bar.add_task("asking", total=len(scenario.rows))
        return asyncio.run(send_all(gateway.url, scenario.rows, lambda _: bar.advance(task)))


# --- While it stays up -----------------------------------------------------------------------------------------------


def _stay(gateway: DemoGateway, scenario: Scenario, place: Place, sent: list[Sent]) -> None:
    for line in _try_it(gateway, scenario, place, sent):
        print(line)  # not folded, so that it can be copied
    say("\nThe gateway stays up until Ctrl-C.", style="dim")
    try:
        while gateway.running:
            time.sleep(0.2)
    except KeyboardInterrupt:
        print()  # after the ^C that the terminal shows
    else:
        raise UpstackError(f"the gateway ended: {gateway.last_words}")


def _try_it(gateway: DemoGateway, scenario: Scenario, place: Place, sent: list[Sent]) -> Iterator[str]:
    """Three commands that work as they stand, with a question that the models of the demo know."""
    answered = [each for each in sent if not each.error]
    row = min((scenario.rows[each.index] for each in answered), key=lambda row: len(str(row.messages)))
    *before, last = row.messages
    question = last.get("content") if not before else None
    body: dict[str, Any] = {"model": f"task/{TASK}", "messages": list(row.messages)}
    asked = place.folder / "request.json"
    asked.write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
    program = _program()
    yield "\nTry it:"
    yield (
        f"  curl {gateway.url}/v1/chat/completions -H 'content-type: application/json' -d @{shlex.quote(str(asked))}"
    )
    if scenario.file is None:
        question = str(last["content"])  # the scripted models know a ticket without its instruction, too
    if isinstance(question, str):
        words = shlex.quote(question)
        if len(question) > _SHORT or not question.isprintable():
            text = place.folder / "question.txt"
            text.write_text(question, encoding="utf-8")
            words = f"- < {shlex.quote(str(text))}"
        yield f"  {program} ask --url {gateway.url} --model task/{TASK} {words}"
    yield f"  {program} why --ledger {shlex.quote(str(place.ledger))} last"


def _program() -> str:
    """How this command line is called from here."""
    beside = Path(sys.executable).with_name("upstack")
    if shutil.which("upstack") or not beside.exists():
        return "upstack"
    return shlex.quote(os.path.relpath(beside))


@contextlib.contextmanager
def _ends_cleanly() -> Iterator[None]:
    """Let a hang-up or a SIGTERM end the demo as Ctrl-C does: with its children stopped and its files removed."""
    told: list[int] = []

    def end(number: int, _frame: object) -> None:
        told.append(number)
        signal.raise_signal(signal.SIGINT)  # which an event loop knows how to end by

    # SIGINT too: for what a script runs in the background it is ignored, and raising it would do nothing.
    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGINT: signal.default_int_handler}
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    except KeyboardInterrupt:
        if not told:
            raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if told:
        raise SystemExit(128 + told[0])
