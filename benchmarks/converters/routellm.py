"""RouteLLM's test sets: GPT-4 (1106-preview) and Mixtral-8x7B on GSM8K (with answers) and MMLU (right or wrong only).

All tokens are approximations (characters / 4). For MMLU nothing was recorded of the answers: content is null and one
output token is assumed, the letter.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.converters.sources import (
    MissingSetError,
    approximate_tokens,
    columns,
    csv_rows,
    route_name,
    source_file,
    write_set,
)
from upstack.core.errors import ConfigError
from upstack.core.traffic import RecordedAnswer, TrafficRow

_RIGHTS = {"source": "https://github.com/lm-sys/RouteLLM", "licence": "Apache-2.0"}
_TRUTHS = {"True": 0.0, "False": 1.0}  # right or not -> loss
_MMLU_MODELS = {"mixtral": "Mixtral-8x7B-Instruct-v0.1", "gpt4_1106": "gpt-4-1106-preview"}


def convert(data: Path | None, out: Path, file: Path | None) -> Iterator[str]:
    """Write `routellm-gsm8k.jsonl.gz` and `routellm-mmlu.jsonl.gz`; a named file is either, by its columns."""
    if file is not None:
        source = source_file(None, "", file)
        yield _gsm8k(source, out) if any(name.endswith("_response") for name in columns(source)) else _mmlu(source, out)
        return
    for write, name in ((_gsm8k, "gsm8k_responses.csv.gz"), (_mmlu, "mmlu_dev.csv.gz")):
        try:
            yield write(source_file(data, f"routellm/{name}"), out)
        except MissingSetError as missing:
            yield f"skipped: {missing}"


def _gsm8k(source: Path, out: Path) -> str:
    models = [name.removesuffix("_response") for name in columns(source) if name.endswith("_response")]
    return write_set(out / "routellm-gsm8k.jsonl.gz", _gsm8k_rows(source, models))


def _gsm8k_rows(source: Path, models: list[str]) -> Iterator[TrafficRow]:
    for index, (number, row) in enumerate(csv_rows(source, ("prompt", *models))):
        asked = approximate_tokens(row["prompt"])
        answers = {
            route_name(model): RecordedAnswer(
                content=row[f"{model}_response"],
                input_tokens=asked,
                output_tokens=approximate_tokens(row[f"{model}_response"]),
                loss=_loss(row[model], source, number),
            )
            for model in models
        }
        yield _row(f"gsm8k/{index}", "routellm-gsm8k", row["prompt"], answers)


def _mmlu(source: Path, out: Path) -> str:
    return write_set(out / "routellm-mmlu.jsonl.gz", _mmlu_rows(source))


def _mmlu_rows(source: Path) -> Iterator[TrafficRow]:
    for index, (number, row) in enumerate(csv_rows(source, ("prompt", "subject", *_MMLU_MODELS))):
        asked = approximate_tokens(row["prompt"])
        answers = {
            route_name(model): RecordedAnswer(
                content=None, input_tokens=asked, output_tokens=1, loss=_loss(row[column], source, number)
            )
            for column, model in _MMLU_MODELS.items()
        }
        yield _row(f"mmlu/{row['subject']}/{index}", "routellm-mmlu", row["prompt"], answers)


def _row(row_id: str, task: str, prompt: str, answers: dict[str, RecordedAnswer]) -> TrafficRow:
    return TrafficRow(
        id=row_id, task=task, messages=({"role": "user", "content": prompt},), answers=answers, rights=_RIGHTS
    )


def _loss(right: str, source: Path, number: int) -> float:
    if right not in _TRUTHS:
        raise ConfigError(f"{source}, line {number}: expected True or False, got {right[:20]!r}")
    return _TRUTHS[right]
