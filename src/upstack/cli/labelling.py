"""`upstack tasks labels`: the disagreements that a label would settle."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from upstack.cli.options import read
from upstack.cli.output import counted, print_json, say
from upstack.cli.proving import look
from upstack.core.completion import CALLS
from upstack.core.store.checks import read_checks
from upstack.core.traffic import prompt_of
from upstack.inference.router import shadow_task

_LONGEST = 400  # characters of a text that a person is shown


def show_labels(
    name: str, ledger: str | None, config: Path | None, replay: Path | None, limit: int, *, as_json: bool
) -> None:
    """Print what nobody has judged yet, blind: the answers stand in no order, and without their routes."""
    from upstack.application.proving.prover import PATIENCE_S  # noqa: PLC0415 - numpy is an extra's
    from upstack.application.proving.pupils import Pupils  # noqa: PLC0415
    from upstack.application.proving.rows import to_row  # noqa: PLC0415
    from upstack.foundation.students.encoder import encoder_of  # noqa: PLC0415

    picture, place, keystore = look(name, ledger, config, replay, acts=False)
    folder = read(config).loop.encoder
    pupils = Pupils(place, 0.0, lambda digest: encoder_of(folder, digest))
    wanted = set(picture.unlabelled[:limit])
    found: list[dict[str, Any]] = []
    for check in read_checks(place, name, shadow_task(name), min(wanted, default=""), keystore) if wanted else ():
        if check.receipt.id not in wanted:
            continue
        row = to_row(check, picture.terms, time.time(), PATIENCE_S, pupils)
        if row is not None:
            said = {answer.content or "" for answer in row.answers.values()}
            found.append({"id": row.id, "request": prompt_of(row), "answers": sorted(said, key=_shuffled)})
    if as_json:
        print_json({"task": name, "waiting": len(picture.unlabelled), "labels": found})
        return
    if not found:
        say(f"Task {name}: no disagreement waits for a label.")
        return
    for each in found:
        say(each["id"], style="bold")
        say(_short(each["request"]))
        for answer in each["answers"]:
            say(f"  - {_short(answer)}")
    waiting = counted(len(picture.unlabelled), "disagreement")
    say(f"{waiting} to be judged. What is right: upstack feedback ID --demonstration TEXT")


def _shuffled(answer: str) -> str:
    return hashlib.sha256(answer.encode("utf-8", "replace")).hexdigest()


def _short(text: str) -> str:
    text = " ".join(text.removeprefix(CALLS).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
