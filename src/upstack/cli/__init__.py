"""The command line: parses, calls, prints.

Every command has `--json`. An error is one line with a remedy, and with `--json` an object on standard error.
"""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from typing import NoReturn

import click

from upstack.cli.commands import app
from upstack.core.errors import ConfigError, UpstackError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line: exit code 2 for wrong usage or configuration, 130 for Ctrl-C, 1 for what else is known."""
    for stream in (sys.stdout, sys.stderr):  # a name in no alphabet of the terminal's must not end in a traceback
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = app(prog_name="upstack", standalone_mode=False)
    except UpstackError as error:
        _fail(error.message, error.code, 2 if isinstance(error, ConfigError) else 1)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        words = error.format_message().rstrip(".")
        if context is not None:
            words += f"{' See' if words.endswith('?') else '; see'} `{context.command_path} --help`"
        _fail(words, "invalid_usage", 2)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: str, status: int) -> NoReturn:
    """Print one line, whatever the message holds, and exit with `status`."""
    words = " ".join(message.split())
    # The flag is looked for where no parser need have come: what is wrong may be the command line itself.
    if "--json" in takewhile(lambda each: each != "--", sys.argv[1:]):
        shown = json.dumps({"error": {"message": words, "code": code}})
    else:
        shown = "upstack: " + "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in words)
    print(shown, file=sys.stderr)
    sys.exit(status)
