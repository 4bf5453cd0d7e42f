"""LLMDrift, "is this number prime?": GPT-4 and GPT-3.5 of March and of June 2023, each version a route of its own.

Output tokens are recorded; input tokens follow from the recorded cost and the prices of the time, and are whole
numbers for every row of the set. The verdict is the last "yes" or "no" of the answer; an answer without one is wrong.
`time` is when the set's authors wrote the row down, taken as UTC. Rows whose reference is neither yes nor no (the
other questions of the study, which have the same columns) get no loss.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.converters.sources import approximate_tokens, csv_rows, route_name, source_file, write_set
from upstack.core.errors import ConfigError
from upstack.core.traffic import RecordedAnswer, TrafficRow

_RIGHTS = {"source": "https://github.com/lchen001/LLMDrift", "licence": "Apache-2.0"}
_NEEDED = (
    "model",
    "trail",
    "dataset",
    "id",
    "query",
    "ref_answer",
    "answer",
    "latency",
    "cost",
    "max_tokens",
    "timestamp",
    "answer_token",
)
_USD_PER_TOKEN = {"gpt-4": (30e-6, 60e-6), "gpt-3.5-turbo": (2e-6, 2e-6)}  # input, output, in mid 2023
_VERDICT = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def convert(data: Path | None, out: Path, file: Path | None) -> Iterator[str]:
    """Write `llmdrift.jsonl.gz`, one row a question with the answers of all versions."""
    source = source_file(data, "llmdrift/PRIME_FULL_EVAL.csv.gz", file)
    yield write_set(out / "llmdrift.jsonl.gz", _rows(source))


def _rows(source: Path) -> Iterator[TrafficRow]:
    # The file goes version by version, so a question's answers lie far apart: all are held until the end.
    first: dict[tuple[str, str, str, str], dict[str, str]] = {}
    answers: dict[tuple[str, str, str, str], dict[str, RecordedAnswer]] = {}
    for number, row in csv_rows(source, _NEEDED):
        question = (row["dataset"], row["id"], row["trail"], row["query"])
        first.setdefault(question, row)
        try:
            answers.setdefault(question, {})[route_name(row["model"])] = _answer(row)
        except ValueError as error:
            raise ConfigError(f"{source}, line {number}: not an LLMDrift row: {error}") from None
    for question, row in first.items():
        yield TrafficRow(
            id="/".join(question[:3]),
            task=f"llmdrift-{row['dataset']}",
            messages=({"role": "user", "content": row["query"]},),
            truth=row["ref_answer"].lower(),
            answers=answers[question],
            time=_time(row["timestamp"]),
            rights=_RIGHTS,
        )


def _answer(row: dict[str, str]) -> RecordedAnswer:
    output_tokens = int(row["answer_token"])
    return RecordedAnswer(
        content=row["answer"],
        input_tokens=_input_tokens(row, output_tokens),
        output_tokens=output_tokens,
        latency_s=float(row["latency"]),
        loss=_loss(row["answer"], row["ref_answer"].lower()),
        finish_reason="length" if output_tokens >= int(row["max_tokens"]) else "stop",
    )


def _input_tokens(row: dict[str, str], output_tokens: int) -> int:
    for start, (input_price, output_price) in _USD_PER_TOKEN.items():
        if route_name(row["model"]).partition("/")[2].startswith(start):
            tokens = round((float(row["cost"]) - output_tokens * output_price) / input_price)
            if tokens > 0:
                return tokens
    return approximate_tokens(row["query"])


def _loss(answer: str, reference: str) -> float | None:
    if reference not in {"yes", "no"}:
        return None
    verdicts = _VERDICT.findall(answer)
    return float(not verdicts or verdicts[-1].lower() != reference)


def _time(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%m/%d/%Y, %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
