"""What the converters share: finding and reading source files, naming models, writing and summing up."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from upstack.core.errors import ConfigError
from upstack.core.traffic import TrafficRow, write_traffic

_MAX_FIELD = 16 * 1024 * 1024  # bytes of a CSV field
# Who made the model, by how its name begins; the first that fits.
_MAKERS = (
    ("gpt-", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "google"),
    ("gemma-", "google"),
    ("deepseek-", "deepseek"),
    ("mistral-", "mistral"),
    ("mixtral-", "mistral"),
    ("mathstral-", "mistral"),
    ("meta-llama-", "meta-llama"),
    ("llama-", "meta-llama"),
    ("qwen", "qwen"),
    ("phi-", "microsoft"),
    ("yi-", "01-ai"),
    ("c4ai-", "cohere"),
    ("jamba-", "ai21"),
)


class MissingSetError(Exception):
    """The set is not in the data folder; the message names what was looked for."""


def source_file(data: Path | None, relative: str, chosen: Path | None = None) -> Path:
    """Return `chosen`, or the file at `relative` in the data folder.

    Raises ConfigError where the chosen one, MissingSetError where the other is not there.
    """
    if chosen is not None:
        if not chosen.is_file():
            raise ConfigError(f"{chosen}: no such file")
        return chosen
    if data is None:
        raise MissingSetError("UPSTACK_DATA is not set")
    path = data / relative
    if not path.is_file():
        raise MissingSetError(f"{path} is not there")
    return path


def open_text(path: Path) -> TextIO:
    """Open UTF-8 text, gzip where the name ends in `.gz`, line ends untouched."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def columns(path: Path) -> list[str]:
    """Return the header of a CSV file."""
    with open_text(path) as file:
        return next(csv.reader(file), [])


def csv_rows(path: Path, needed: Iterable[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, row) of a CSV file; ConfigError where a needed column is missing or a row is short."""
    csv.field_size_limit(_MAX_FIELD)
    with open_text(path) as file:
        reader = csv.DictReader(file, strict=True)
        missing = [name for name in needed if name not in (reader.fieldnames or ())]
        if missing:
            raise ConfigError(f"{path}: has no column {', '.join(missing)}")
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ConfigError(f"{path}, line {reader.line_num}: not as many fields as the header has")
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError, EOFError) as error:
            raise ConfigError(f"{path}, line {reader.line_num}: {error}") from None


def route_name(model: str) -> str:
    """Return "provider/model" for a model as a set names it: the provider is who made it, or "other"."""
    name = model.rpartition("/")[2].strip()
    lower = name.lower()
    return next((f"{maker}/{name}" for start, maker in _MAKERS if lower.startswith(start)), f"other/{name}")


def approximate_tokens(text: str) -> int:
    """Guess the tokens of a text at four characters each, at least one."""
    return max(1, len(text) // 4)


def write_set(path: Path, rows: Iterable[TrafficRow]) -> str:
    """Write the rows; return a line with the sums to check them by."""
    answers = inputs = outputs = graded = 0
    losses = 0.0
    models: set[str] = set()

    def counted() -> Iterator[TrafficRow]:
        nonlocal answers, inputs, outputs, graded, losses
        for row in rows:
            models.update(row.answers)
            for answer in row.answers.values():
                answers += 1
                inputs += answer.input_tokens
                outputs += answer.output_tokens
                graded += answer.loss is not None
                losses += answer.loss or 0.0
            yield row

    count = write_traffic(path, counted())
    mean = f"mean loss {losses / graded:.4f}" if graded else "no losses"
    return (
        f"{path}: {count:,} rows, {answers:,} answers by {len(models)} models, "
        f"{inputs:,} input and {outputs:,} output tokens, {mean}"
    )
