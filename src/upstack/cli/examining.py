"""`upstack doctor`: what was found, a line each, with a remedy where one is needed."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import typer

from upstack.application.doctor.examination import examine
from upstack.cli.options import config_path
from upstack.cli.output import new_grid, print_json, printable, say, show, styled
from upstack.core.errors import ConfigError

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def run(config: Path | None, *, offline: bool, as_json: bool) -> None:
    """Print the findings; exit code 1 where one is a problem."""
    if config is not None and not config.exists():
        raise ConfigError(f"{config}: no such file; leave --config out to go by the environment alone")
    findings = examine(config_path(config), os.environ, offline=offline)
    problems, notes = (sum(each.level == level for each in findings) for level in ("problem", "note"))
    if as_json:
        found = msgspec.to_builtins(findings)
        print_json({"problems": problems, "notes": notes, "offline": offline, "findings": found})
    else:
        lines = new_grid(3)
        for each in findings:
            text = styled(each.text, "")
            if each.remedy:
                text.append(f"\n-> {printable(each.remedy)}", style="dim")
            lines.add_row(styled(each.level, _STYLES[each.level]), each.topic, text)
        show(lines)
        untried = "; no connection was made" if offline else ""
        say(f"\n{_count(problems, 'problem')}, {_count(notes, 'note')}{untried}.")
    if problems:
        raise typer.Exit(1)


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
