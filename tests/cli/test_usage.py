"""The command line's manners: help, exit codes, and errors of one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import upstack
from tests import plain
from tests.cli.calling import Terminal, background, call
from upstack.cli import app

COMMANDS = [
    "ask",
    "backtest",
    "certify",
    "data diff",
    "data export",
    "data snapshots",
    "demo",
    "doctor",
    "export",
    "feedback",
    "forget",
    "import",
    "keys list",
    "keys new",
    "keys rotate",
    "ledger backup",
]
COMMANDS += ["ledger checkpoint", "ledger erase", "ledger key", "ledger prune", "ledger restore", "ledger verify"]
COMMANDS += [
    "loop run",
    "loop simulate",
    "reload",
    "review",
    "rights why",
    "routes",
    "serve",
    "spend",
    "tasks labels",
    "tasks show",
    "why",
]


def test_help_names_every_command(tmp_path: Path) -> None:
    """`upstack --help` is where everything is found."""
    done = call("--help", cwd=tmp_path)
    assert done.code == 0
    assert all(f" {name.split()[0]} " in done.out for name in COMMANDS)
    assert "\x1b" not in done.out


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    """Called with nothing it explains itself, and says by its exit code that this was no use."""
    done = call(cwd=tmp_path)
    assert done.code == 2
    assert "Commands" in done.out + done.err


def test_help_says_what_an_argument_is(tmp_path: Path) -> None:
    """What may stand for an id or a question can be found without reading the code."""
    assert '"last" for the newest' in call("why", "--help", cwd=tmp_path).out
    assert '"-" reads it from standard input' in call("ask", "--help", cwd=tmp_path).out


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    """`--version` prints the version alone."""
    assert call("--version", cwd=tmp_path).out == f"{upstack.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rout"], ["rout", "routes", "upstack --help"]),
        (["routes", "--jsn"], ["--jsn", "--json'? See `upstack routes --help`"]),
        (["ask"], ["QUESTION", "ask --help"]),
        (["serve", "--port", "70000"], ["70000", "--port"]),
        (["demo", "--prices", "x.toml"], ["--prices goes with --traffic"]),
        (["ask", "  "], ["the question is empty"]),
        (["ask", "--url", "ftp://x", "hi"], ["--url", "http://127.0.0.1:4000"]),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_code_2(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    """The line names what was wrong and where to read on."""
    call(*arguments, cwd=tmp_path).failed(2, *words)


def test_with_json_an_error_is_an_object(tmp_path: Path) -> None:
    """Its message and code for programs, on standard error, from every part that can fail; exit codes stay."""
    (tmp_path / "upstack.toml").write_text("[server]\nprot = 4000\n")
    cases = [
        (["routes", "--json", "--jsn"], 2, "invalid_usage", "--jsn"),
        (["serve", "--json"], 2, "invalid_config", "server.prot"),
        (["why", "--json", "--ledger", "no.db", "last"], 1, "ledger_unavailable", "no.db"),
        (["ask", "--json", "--url", "\x1b[2J", "hi"], 2, "invalid_config", "\x1b[2J"),
    ]
    for arguments, status, code, words in cases:
        done = call(*arguments, cwd=tmp_path)
        assert (done.code, done.out, done.error["code"]) == (status, "", code)
        assert words in done.error["message"]
        assert "\x1b" not in done.err
    call("ask", "--url", "ftp://x", "--", "--json", cwd=tmp_path).failed(2, "--url")


def test_serve_says_in_json_where_it_listens(tmp_path: Path) -> None:
    """One line on standard output as soon as it can be asked; the log stays on standard error."""
    with background("serve", "--json", "--port", "0", cwd=tmp_path, OPENAI_API_KEY="sk-x") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert {name: said[name] for name in ("providers", "receipts", "ledger")} == {
            "providers": ["openai"],
            "receipts": "required",
            "ledger": "upstack.db",
        }
        assert plain.get(f"{said['url']}/models").status_code == 200
        process.terminate()
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "")
        assert f"upstack: listening on {said['url']}\n" in err


def test_every_command_has_json() -> None:
    """No command is for people alone."""
    commands = dict(_commands(typer.main.get_command(app)))
    assert sorted(commands) == COMMANDS
    assert [name for name, command in commands.items() if "as_json" not in {p.name for p in command.params}] == []


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its full name, those of groups included."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


BROKEN = {
    "an unknown key": ("[server]\nprot = 4000\n", ["server.prot", "did you mean `port`?", "Allowed here"]),
    "no TOML": ("[server\n", ["upstack.toml", "not TOML"]),
    "a route nobody has": ('[tasks.t]\ncandidates = ["opnai/gpt"]\n', ["tasks.t.candidates[0]", "openai"]),
}


@pytest.mark.parametrize(
    ("command", "kind"),
    [(command, "an unknown key") for command in ("serve", "ask hi", "why last", "reload")]
    + [("routes", kind) for kind in BROKEN if kind != "an unknown key"],
)
def test_a_broken_configuration_is_one_line_and_code_2(tmp_path: Path, command: str, kind: str) -> None:
    """Whoever reads the configuration says what is wrong with it, and what was probably meant."""
    content, words = BROKEN[kind]
    (tmp_path / "upstack.toml").write_text(content)
    call(*command.split(), cwd=tmp_path).failed(2, *words)


@pytest.mark.parametrize("command", ["tasks", "doctor"])
def test_a_configuration_that_is_not_there_is_said(tmp_path: Path, command: str) -> None:
    """A file that was named must exist; only the default one may be missing."""
    call(*command.split(), "--config", "other.toml", cwd=tmp_path).failed(2, "other.toml", "no such file")


def test_a_message_cannot_drive_the_terminal(tmp_path: Path) -> None:
    """Control characters of a name are shown as escapes."""
    call("ask", "--url", "\x1b[2J", "hi", cwd=tmp_path).failed(2, "\\x1b[2J")


def test_a_narrow_terminal_has_no_line_that_is_too_long(tmp_path: Path) -> None:
    """At 80 columns nothing is cut off or wrapped by the terminal."""
    (tmp_path / "upstack.toml").write_text(
        '[server]\nport = 1\n[providers.a-rather-long-name]\nbase_url = "http://127.0.0.1:9/v1"\nauth = "none"\n'
        '[routes.onsite]\nmodel = "a-rather-long-name/and-a-model-that-is-longer-than-any-line-of-a-table-should-be"\n'
        'residency = "onsite"\n[tasks.sort]\ncandidates = ["onsite"]\n'
    )
    for command in (["routes"], ["tasks"], ["doctor", "--offline"]):
        with Terminal(*command, cwd=tmp_path) as terminal:
            terminal.end()
            assert terminal.plain.strip()
            assert max(len(line.rstrip()) for line in terminal.plain.splitlines()) <= 80, terminal.plain
