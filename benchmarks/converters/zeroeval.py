"""ZeroEval (GSM8K, MATH level 5, CRUXEval; 18 models) and its price list.

Content is the whole output where the set has it (6 models), else the answer alone, else empty. Tokens are counted with
one open tokenizer for all models, not as the providers billed them. The loss is the grade of the set's own extractor.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.converters.sources import MissingSetError, open_text, route_name, source_file, write_set
from upstack.core.errors import ConfigError
from upstack.core.traffic import RecordedAnswer, TrafficRow

_RIGHTS = {
    "source": "https://github.com/WildEval/ZeroEval",
    "licence": "Apache-2.0",
    "terms": "outputs of commercial models: evaluation only",
}


def convert(data: Path | None, out: Path, file: Path | None) -> Iterator[str]:
    """Write `zeroeval.jsonl.gz` and `zeroeval.prices.toml`; yield a line about each."""
    source = source_file(data, "zeroeval/dev.jsonl.gz", file)
    yield write_set(out / "zeroeval.jsonl.gz", _rows(source))
    beside = source.with_name("prices.json")
    try:
        prices = beside if beside.is_file() else source_file(data, "zeroeval/prices.json")
    except MissingSetError as missing:
        yield f"no prices written: {missing}"
        return
    yield _write_prices(prices, out / "zeroeval.prices.toml")


def _rows(path: Path) -> Iterator[TrafficRow]:
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield _row(json.loads(line))  # not msgspec: where no answer was found, the set says NaN
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise ConfigError(f"{path}, line {number}: not a ZeroEval row: {error!r}") from None


def _row(row: dict[str, Any]) -> TrafficRow:
    return TrafficRow(
        id=f"{row['task']}/{row['id']}",
        task=f"zeroeval-{row['task']}",
        messages=({"role": "user", "content": row["prompt"]},),
        truth=row["reference"],
        answers={route_name(model): _answer(answer) for model, answer in row["models"].items()},
        rights=_RIGHTS,
    )


def _answer(answer: dict[str, Any]) -> RecordedAnswer:
    content = answer.get("output")
    if content is None:
        found = answer["answer"]
        content = "" if found is None or found != found else str(found)  # noqa: PLR0124  # NaN
    return RecordedAnswer(
        content=content,
        input_tokens=answer["in_tok"],
        output_tokens=answer["out_tok"],
        loss=1.0 - answer["correct"],
    )


def _write_prices(source: Path, path: Path) -> str:
    """Write `[prices]` tables as upstack.toml has them; the numbers are those of the source."""
    try:
        listed = json.loads(source.read_text(encoding="utf-8"))
        lines = [f"# USD per million tokens. {' '.join(str(listed.get('note', '')).split())}"]
        for model, (input_price, output_price) in listed["prices"].items():
            prices = f"input = {input_price!r}\noutput = {output_price!r}"
            lines.append(f'\n[prices."{route_name(model)}"]\n{prices}')
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}: not a ZeroEval price list: {error!r}") from None
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{path}: {len(listed['prices'])} prices"
