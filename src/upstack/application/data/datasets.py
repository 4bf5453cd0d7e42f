"""Datasets that leave: what may be exported of a task, in formats that others read, with a card beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from upstack.application.data.capture import Captured
from upstack.application.data.curate import Curated
from upstack.application.data.personal import mask
from upstack.application.data.rights import Judge
from upstack.application.data.snapshots import freeze
from upstack.core.errors import ConfigError, EvidenceError
from upstack.foundation.rights import NOT_ADVICE, Facts, Rights, together
from upstack.inference.distill.lessons import Lesson

FORMATS = ("openai-jsonl", "preferences", "parquet")


class Exported(msgspec.Struct, frozen=True):
    """What came of it."""

    rows: int
    withheld: Mapping[str, int]  # why, and how many
    snapshot: str
    card: str  # path of the data card


class Shelf(msgspec.Struct, frozen=True):
    """What there is to export from: one task of one ledger."""

    place: str
    task: str
    rows: Sequence[Captured]
    curated: Curated
    judge: Judge


def export(shelf: Shelf, form: str, path: Path, now: float, *, masked: bool) -> Exported:
    """Write what may leave to `path`, and a card beside it. ConfigError where it cannot be written, EvidenceError.

    `masked`: personal data is masked in what is written.
    """
    if form not in FORMATS:
        raise ConfigError(f'--format "{form}": expected one of {", ".join(FORMATS)}')
    said = shelf.judge.said(shelf.task)
    withheld: Counter[str] = Counter()
    leaving: list[tuple[Captured, Rights]] = []
    known: dict[str, Facts] = {}
    for row in shelf.rows:
        if row.truth is None and row.teacher is None:
            continue
        if form == "preferences" and not _is_corrected(row):
            continue
        facts = shelf.judge.facts(row, said.get(row.id, {}))
        rights = shelf.judge.of(facts)
        if form == "preferences":  # what the model said leaves, too
            rights = together([rights, shelf.judge.of(_as_the_model_said(facts, row))])
        if rights.may_export:
            leaving.append((row, rights))
            known[row.id] = facts
        else:
            withheld[rights.reasons["export"]] += 1
    items = list(_items(leaving, form, masked=masked))
    if not items:
        why = f": of {withheld.most_common(1)[0][1]} it is that {withheld.most_common(1)[0][0]}" if withheld else ""
        raise EvidenceError(f"nothing of task {shelf.task} may leave{why}")
    rows = tuple(Lesson(row.id, row.text, _right(row), human=row.truth is not None) for row, _ in leaving)
    left = msgspec.structs.replace(shelf.curated, lessons=rows, dropped={}, facts=known)
    snapshot = freeze(shelf.place, shelf.task, left, now, str(path.absolute()))
    card = path.with_name(f"{path.name}.card.md")
    try:
        _write(items, form, path)
        card.write_text(_card(shelf, form, len(items), leaving, withheld, snapshot.id, masked=masked), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None
    return Exported(len(items), dict(withheld), snapshot.id, str(card))


def _items(rows: Sequence[tuple[Captured, Rights]], form: str, *, masked: bool) -> Iterator[dict[str, Any]]:
    hide = mask if masked else str
    for row, rights in rows:
        messages = [{"role": str(each.get("role")), "content": hide(_text(each))} for each in row.messages]
        right = hide(_right(row))
        if form == "openai-jsonl":
            yield {"messages": [*messages, {"role": "assistant", "content": right}]}
        elif form == "preferences":
            yield {
                "input": {"messages": messages},
                "preferred_output": [{"role": "assistant", "content": right}],
                "non_preferred_output": [{"role": "assistant", "content": hide(row.teacher or "")}],
            }
        else:
            whole = {"id": row.id, "messages": json.dumps(messages, ensure_ascii=False), "answer": right}
            by = {"by_a_person": row.truth is not None, "provider": row.provider, "model": row.model}
            yield {**whole, **by, "terms": ", ".join(rights.texts), "obligations": ", ".join(rights.obligations)}


def _right(row: Captured) -> str:
    return row.truth if row.truth is not None else row.teacher or ""


def _is_corrected(row: Captured) -> bool:
    return row.truth is not None and row.teacher is not None and row.truth.strip() != row.teacher.strip()


def _as_the_model_said(facts: Facts, row: Captured) -> Facts:
    return msgspec.structs.replace(facts, provider=row.provider, model=row.model)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _write(items: Sequence[Mapping[str, Any]], form: str, path: Path) -> None:
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in items)
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.write_bytes(lines)
        if form == "parquet":
            _to_parquet(draft, path)
        else:
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _to_parquet(draft: Path, path: Path) -> None:
    try:
        import duckdb  # noqa: PLC0415 - an extra's
    except ImportError:
        raise ConfigError("Parquet needs the extra: pip install 'upstack[learn]'") from None
    with duckdb.connect() as database:
        rows = database.read_json(str(draft), format="newline_delimited")
        rows.write_parquet(str(path))


def _card(
    shelf: Shelf,
    form: str,
    count: int,
    rows: Sequence[tuple[Captured, Rights]],
    withheld: Mapping[str, int],
    snapshot: str,
    *,
    masked: bool,
) -> str:
    """Say what a dataset is, whom it is by, and what is owed for it."""
    models = Counter(f"{row.provider}/{row.model}" if row.truth is None else "people" for row, _ in rows)
    owed = sorted({each for _, rights in rows for each in rights.obligations})
    under = Counter(text for _, rights in rows for text in rights.texts)
    hidden = "masked by rules, which miss some" if masked else "NOT masked"
    lines = [
        f"# {shelf.task}",
        f"{count:,} rows, {form}, snapshot `{snapshot[:16]}`. Personal data: {hidden}.",
        "## Answers by",
        *(f"- {name}: {number:,}" for name, number in models.most_common()),
        "## Terms and licences",
        *(f"- {name}: {number:,} rows" for name, number in under.most_common()),
        "## Owed",
        *([f"- {each}" for each in owed] or ["- nothing"]),
        "## Withheld",
        *([f"- {number:,}: {why}" for why, number in withheld.items()] or ["- nothing"]),
        NOT_ADVICE,
    ]
    return "\n\n".join(lines) + "\n"
