"""`upstack data` and `upstack rights`: what may leave, what a snapshot holds, and why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from upstack.cli.learnt import look_at
from upstack.cli.looping import needs_the_extra
from upstack.cli.options import keystore_of, ledger_of, look_here, read
from upstack.cli.output import counted, new_sheet, new_table, print_json, say, show, styled
from upstack.core.errors import RequestError
from upstack.core.store.reading import read_receipt
from upstack.core.store.students import snapshot_of, snapshots_of, student_row
from upstack.foundation.rights import NOT_ADVICE, USES, Rights

_SHOWN = 20


def export(
    task: str, form: str, path: Path, ledger: str | None, config: Path | None, *, masked: bool, as_json: bool
) -> None:
    """Write what may leave of a task."""
    needs_the_extra()
    from upstack.application.data.datasets import Shelf  # noqa: PLC0415 - numpy is an extra's
    from upstack.application.data.datasets import export as write  # noqa: PLC0415
    from upstack.application.data.rights import Judge  # noqa: PLC0415

    seen = look_at(task, ledger, config)
    judge = Judge(seen.place, seen.config.rights)
    shelf = Shelf(seen.place, task, list(seen.rows.values()), seen.loop.curated(), judge)
    done = write(shelf, form, path, time.time(), masked=masked)
    if as_json:
        print_json({"path": str(path), **msgspec.to_builtins(done)})
        return
    say(f"{path}: {counted(done.rows, 'row')}, snapshot {done.snapshot[:16]}; what they are stands in {done.card}")
    for why, count in done.withheld.items():
        say(f"withheld {count:,}: {why}", style="yellow")
    if not masked:
        say("Personal data is not masked: --mask hides what rules find.", style="yellow")


def snapshots(task: str, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """List what was frozen of a task."""
    found = snapshots_of(ledger_of(ledger, config), task)
    if as_json:
        print_json([{"id": own_id, "created_at": at} for own_id, _, at in found])
        return
    table = new_table("snapshot", "made")
    for own_id, _, at in found:
        table.add_row(own_id[:16], f"{at[:19]}Z")
    show(table)


def diff(task: str, one: str, other: str, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Say in what two snapshots differ."""
    place = ledger_of(ledger, config)
    before, after = (_manifest(place, task, each) for each in (one, other))
    was, now = ({row[0]: row[1] for row in each["rows"]} for each in (before, after))
    added, gone = sorted(now.keys() - was.keys()), sorted(was.keys() - now.keys())
    changed = sorted(row for row in now.keys() & was.keys() if now[row] != was[row])
    why = dict(after["dropped"])
    said = {"added": added, "removed": [[row, why.get(row, "it is gone")] for row in gone], "changed": changed}
    if as_json:
        print_json({**said, "code": [before["code"], after["code"]]})
        return
    say(f"{len(was):,} rows, then {len(now):,}", style="bold")
    for what, rows in (("added", added), ("another answer or weight", changed)):
        say(f"{what}: {len(rows):,}{': ' if rows else ''}{', '.join(rows[:_SHOWN])}{' ...' if rows[_SHOWN:] else ''}")
    say(f"removed: {len(gone):,}")
    for row in gone[:_SHOWN]:
        say(f"  {row}: {why.get(row, 'it is gone')}")
    if before["code"] != after["code"]:
        say(f"made by version {before['code']}, then {after['code']}")


def why(wanted: str, ledger: str | None, config: Path | None, *, as_json: bool) -> None:
    """Explain what may be done with a row, or with a student."""
    needs_the_extra()
    from upstack.application.data.capture import captured  # noqa: PLC0415 - numpy is an extra's
    from upstack.application.data.rights import Judge  # noqa: PLC0415
    from upstack.application.proving.pupils import Learnt  # noqa: PLC0415

    look_here()
    place, settings = ledger_of(ledger, config), read(config)
    judge = Judge(place, settings.rights)
    student = student_row(place, wanted.rpartition(":")[2])
    if student is not None:
        learnt = msgspec.json.decode(student.summary, type=Learnt)
        what = f"student {student.id} of task {student.task}, {counted(learnt.lessons, 'row')}"
        _show(
            what, judge.student(learnt.rights), [msgspec.to_builtins(each) for each in learnt.rights], as_json=as_json
        )
        return
    receipt = read_receipt(place, wanted, keystore_of(ledger, config))
    if receipt is None:
        raise RequestError(f'There is no receipt or student "{wanted}" in the ledger', code="receipt_not_found")
    row = captured(receipt)
    known = judge.facts(row, judge.said(receipt.task or "").get(receipt.id, {}))
    _show(f"row {receipt.id}", judge.of(known), [msgspec.to_builtins(known)], as_json=as_json)


def _show(what: str, rights: Rights, facts: list[Any], *, as_json: bool) -> None:
    if as_json:
        may = {f"may_{use}": rights.permits[use] for use in USES}
        print_json({"what": what, **may, **msgspec.to_builtins(rights), "facts": facts, "note": NOT_ADVICE})
        return
    sheet = new_sheet()
    sheet.add_row("What", styled(what, "bold"))
    for each in facts[:_SHOWN]:
        known = ", ".join(f"{name} {value}" for name, value in each.items() if value)
        sheet.add_row("Known", known or "nothing was said: your own callers' words")
    for use in USES:
        allowed = rights.permits[use]
        sheet.add_row(
            f"May {use}", styled(f"{'yes' if allowed else 'no'}: {rights.reasons[use]}", "green" if allowed else "red")
        )
    if rights.conditions:
        sheet.add_row("As long as", ", ".join(rights.conditions))
    sheet.add_row("Owed", ", ".join(rights.obligations) or "nothing")
    show(sheet)
    say(NOT_ADVICE, style="dim")


def _manifest(place: str, task: str, wanted: str) -> dict[str, Any]:
    names = [own_id for own_id, _, _ in snapshots_of(place, task) if own_id.startswith(wanted)]
    found = snapshot_of(place, names[0]) if len(names) == 1 else None
    if found is None:
        many = "several snapshots begin so" if names else f"task {task} has no such snapshot"
        raise RequestError(f'"{wanted}": {many}; `upstack data snapshots {task}` lists them', code="snapshot_not_found")
    return msgspec.json.decode(found.manifest, type=dict[str, Any])
