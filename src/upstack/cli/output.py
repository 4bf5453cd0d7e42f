"""What commands print: tables for people, JSON for programs, and nothing that could drive the terminal.

rich is loaded when a person is to see something: errors and JSON do without.
"""
# ruff: noqa: PLC0415 - that is what the imports inside functions are for

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

PIPED_COLUMNS = 120  # of a table that goes into a file or a pipe: wide enough that few names are broken
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # but tabs and line ends


def console(*, stderr: bool = False) -> Console:
    """Give a console that takes text as it is: no markup, no guessed colours; plain where there is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def show(table: RenderableType) -> None:
    """Print a table on standard output; into a file or a pipe without the blanks that fill its lines."""
    out = console()
    if out.is_terminal:
        out.print(table)
        return
    with out.capture() as captured:
        out.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def say(text: str, *, style: str = "", stderr: bool = False) -> None:
    """Print a sentence: folded at words in a terminal, one line in a file or a pipe."""
    out = console(stderr=stderr)
    out.print(printable(text), style=style, soft_wrap=not out.is_terminal)


def counted(count: int, what: str) -> str:
    """Say how many there are: "1 receipt", "1,204 receipts"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


class Name:
    """A cell of names, a line each; one that is too long goes on below after a `/` or the like, not inside a word."""

    def __init__(self, *lines: str) -> None:
        self._lines = [re.findall(r"[^/._:-]+[/._:-]*|[/._:-]+", printable(line)) for line in lines]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """From the longest piece to the longest line."""
        from rich.measure import Measurement

        lengths = [[len(piece) for piece in line] for line in self._lines]
        return Measurement(max(map(max, lengths)), max(map(sum, lengths))).with_maximum(options.max_width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Fill each line with as many pieces as it takes."""
        from rich.text import Text

        for line in self._lines:
            row = ""
            for piece in line:
                if row and len(row) + len(piece) > options.max_width:
                    yield Text(row)
                    row = "  "
                row += piece
            yield Text(row, overflow="fold")


def new_table(*columns: str, right: Sequence[str] = (), whole: Sequence[str] = ()) -> Table:
    """Start a table; the columns in `right` hold numbers, those in `whole` are never folded."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        justify: Literal["left", "right"] = "right" if name in right else "left"
        made.add_column(name, justify=justify, overflow="fold", no_wrap=name in whole)
    return made


def new_grid(columns: int) -> Table:
    """Start a table without lines and heads; only its last column is folded."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    for _ in range(columns - 1):
        made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    return made


def new_sheet() -> Table:
    """Start a table of names and values, framed, in sections."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.ROUNDED, show_header=False)
    made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    return made


def styled(text: str, style: str) -> Text:
    """Give a cell its style; control characters are shown as escapes."""
    from rich.text import Text

    return Text(printable(text), style=style)


def print_json(value: Any) -> None:
    """Print one JSON document, escaped as far as the stream needs it."""
    utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(value, indent=2, ensure_ascii=not utf8))


def printable(text: str) -> str:
    r"""Replace control characters, which could drive a terminal, by their escape (`\x1b`); tabs and line ends stay."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def usd_per_million(picodollars_per_token: int) -> str:
    """Write a rate as USD per million tokens, exactly, with two decimals at least: "0.15", "0.075", "10.00"."""
    whole, _, decimals = format((Decimal(picodollars_per_token) / 10**6).normalize(), "f").partition(".")
    return f"{whole}.{decimals:0<2}"
