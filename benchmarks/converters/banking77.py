"""Banking77: customers' questions, the intent people gave them, and the intents GPT-4 and GPT-3.5 gave them.

Labels are written as intent names ("card_linking") where the set's few-shot file names them, since a name means
something to a model, a grader's report and a reader; a number without a name (77: the model named no intent) stays a
number. Truth and content are written alike, so they compare as they are. The messages hold the question alone: the
few-shot prompt the models were really given is not recorded, so tokens (characters / 4) are far below the true ones.

The few-shot rows and the training rows have truth and no answers: they are what a task can start from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.converters.sources import (
    MissingSetError,
    approximate_tokens,
    columns,
    csv_rows,
    source_file,
    write_set,
)
from upstack.core.traffic import RecordedAnswer, TrafficRow

_RIGHTS = {"source": "https://github.com/stoyian/OCaTS", "licence": "MIT"}
# The same model under other examples is another behaviour version, so it has a name of its own.
_ROUTES = {
    "gpt-label": "openai/gpt-4",
    "gpt4-label_nonrep": "openai/gpt-4-nonrep",
    "gpt35-label_rep": "openai/gpt-3.5-turbo",
}


def convert(data: Path | None, out: Path, file: Path | None) -> Iterator[str]:
    """Write `banking77.jsonl.gz`; unless a file is named `banking77-start.jsonl.gz` (few-shot) and `-train`."""
    names = ("dev",) if file else ("dev", "more")
    sources = [source_file(data, f"banking77/{name}_gpt4.csv", file) for name in names]
    labels = _label_names(data, sources[0])
    if not labels:
        yield "fewshot_train.csv is not there: labels stay numbers"
    yield write_set(out / "banking77.jsonl.gz", _rows(sources, labels))
    if file is None:
        for name, stem in (("fewshot_train", "start"), ("train", "train")):
            try:
                rows = source_file(data, f"banking77/{name}.csv")
            except MissingSetError as missing:
                yield f"no {stem} set: {missing}"
                continue
            yield write_set(out / f"banking77-{stem}.jsonl.gz", _rows([rows], labels))


def _label_names(data: Path | None, source: Path) -> dict[str, str]:
    beside = source.with_name("fewshot_train.csv")
    try:
        path = beside if beside.is_file() else source_file(data, "banking77/fewshot_train.csv")
    except MissingSetError:
        return {}
    return {row["label"]: row["label_name"] for _, row in csv_rows(path, ("label", "label_name"))}


def _rows(sources: Iterable[Path], names: dict[str, str]) -> Iterator[TrafficRow]:
    for source in sources:
        routes = {column: _ROUTES[column] for column in columns(source) if column in _ROUTES}
        for index, (_, row) in enumerate(csv_rows(source, ("text", "label"))):
            truth = names.get(row["label"], row["label"])
            given = {route: names.get(row[column], row[column]) for column, route in routes.items()}
            yield TrafficRow(
                id=f"{source.name.partition('.')[0]}/{index}",
                task="banking77",
                messages=({"role": "user", "content": row["text"]},),
                truth=truth,
                answers={route: _answer(row["text"], label, truth) for route, label in given.items()},
                rights=_RIGHTS,
            )


def _answer(text: str, label: str, truth: str) -> RecordedAnswer:
    return RecordedAnswer(
        content=label,
        input_tokens=approximate_tokens(text),
        output_tokens=approximate_tokens(label),
        loss=float(label != truth),
    )
