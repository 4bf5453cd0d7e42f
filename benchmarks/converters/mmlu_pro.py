"""MMLU-Pro (28 models): who was right, without what they said.

Content is null. All tokens are approximations: output tokens are the set's own (characters / 4), input tokens the
prompt's characters / 4, while the models were really asked with five examples in front, so true input was longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.converters.sources import approximate_tokens, columns, csv_rows, route_name, source_file, write_set
from upstack.core.errors import ConfigError
from upstack.core.traffic import RecordedAnswer, TrafficRow

_RIGHTS = {"source": "https://github.com/TIGER-AI-Lab/MMLU-Pro", "licence": "Apache-2.0"}
_FIXED = ("qid", "category", "ref", "prompt")


def convert(data: Path | None, out: Path, file: Path | None) -> Iterator[str]:
    """Write `mmlu-pro.jsonl.gz`; the file of output tokens lies beside `X_correct.csv` as `X_outtok_approx.csv`."""
    source = source_file(data, "mmlupro/dev_correct.csv.gz", file)
    tokens = source.with_name(source.name.replace("correct", "outtok_approx"))
    if tokens == source or not tokens.is_file():
        raise ConfigError(f"{source}: its output tokens are looked for in *_outtok_approx* beside a *_correct* file")
    yield write_set(out / "mmlu-pro.jsonl.gz", _rows(source, tokens))


def _rows(source: Path, tokens: Path) -> Iterator[TrafficRow]:
    models = [name for name in columns(source) if name not in _FIXED]
    outputs = {row["qid"]: row for _, row in csv_rows(tokens, ("qid", *models))}
    for number, row in csv_rows(source, _FIXED):
        try:
            answers = _answers(row, outputs[row["qid"]], models)
        except (KeyError, ValueError) as error:
            raise ConfigError(f"{source}, line {number}: not an MMLU-Pro row: {error!r}") from None
        yield TrafficRow(
            id=f"{row['category']}/{row['qid']}",
            task="mmlu-pro",
            messages=({"role": "user", "content": row["prompt"]},),
            truth=row["ref"],
            answers=answers,
            rights=_RIGHTS,
        )


def _answers(row: dict[str, str], outputs: dict[str, str], models: list[str]) -> dict[str, RecordedAnswer]:
    asked = approximate_tokens(row["prompt"])
    return {
        route_name(model): RecordedAnswer(
            content=None, input_tokens=asked, output_tokens=int(outputs[model]), loss=1.0 - int(row[model])
        )
        for model in models
    }
