"""`upstack review`: what people are asked to say, one row after the other, by the keyboard alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from upstack.cli.learnt import look_at
from upstack.cli.looping import needs_the_extra
from upstack.cli.output import counted, print_json, say
from upstack.cli.telling import send
from upstack.core.traffic import text_of

if TYPE_CHECKING:
    from upstack.application.data.capture import Captured
    from upstack.application.loop import Loop

_LONGEST = 2_000  # characters of a request that are shown
_MOST_SHOWN = 9  # answers to choose from by one key
_HELP = "number: that answer is right · t: another one · s: skip · q: stop"
SOURCE = "reviewer"


class Question(msgspec.Struct, frozen=True):
    """A row, what was answered to it, and which queue it stands in."""

    id: str
    request: str
    answers: tuple[str, ...]  # in no order, without who gave them
    queue: str  # "evidence" or "training"


class Queues(msgspec.Struct, frozen=True):
    """What waits for a label."""

    evidence: tuple[Question, ...]  # in the order of the requests
    training: tuple[Question, ...]  # by what a label is worth
    left: int  # labels until the next plan can be proved


def review(
    task: str, ledger: str | None, config: Path | None, url: str | None, limit: int, queue: str | None, *, as_json: bool
) -> None:
    """Ask, and record what is said, until nothing is left or the person stops."""
    needs_the_extra()
    queues = queues_of(task, ledger, config)
    if as_json:
        print_json({"task": task, **msgspec.to_builtins(queues)})
        return
    wanted = {"evidence": queues.evidence, "training": queues.training, None: (*queues.evidence, *queues.training)}
    questions = wanted[queue][:limit]
    if not questions:
        say(f"Task {task}: nothing waits for a label.")
        return
    left = queues.left
    say(f"{counted(left, 'label')} left to certify" if left else "Nothing that is to be certified waits for a label.")
    with _one_key() as key:
        for number, question in enumerate(questions, 1):
            said = _ask(question, f"{number} of {len(questions)}, {question.queue}", key)
            if said is None:
                break
            if said:
                body = {"receipt": question.id, "name": "label", "source": SOURCE, "demonstration": said}
                asyncio.run(send(body, url, config))
                left -= question.queue == "evidence" and left > 0
                say(f"recorded · {counted(left, 'label')} left to certify", style="green")


def queues_of(task: str, ledger: str | None, config: Path | None) -> Queues:
    """What waits for a label, as the ledger stands. ConfigError, LedgerError."""
    seen = look_at(task, ledger, config)
    loop, rows = seen.loop, seen.rows
    picture = loop.turn(time.time())
    later = picture.unlabelled if picture.submission is not None else ()  # before, these are rows to choose plans by
    order = dict.fromkeys((*sorted({*picture.watching, *picture.needed}), *later))
    evidence = [_question(loop, rows[each], "evidence") for each in order if each in rows]
    training = [_question(loop, rows[each], "training") for each in loop.disputed() if each in rows]
    return Queues(tuple(evidence), tuple(training), len(picture.needed))


def _question(loop: Loop, row: Captured, queue: str) -> Question:
    said = {each for each in (row.teacher, *loop.answers(row.id, row.text)) if each is not None}
    answers = sorted(said, key=lambda each: hashlib.sha256(each.encode("utf-8", "replace")).digest())
    return Question(row.id, text_of(row.messages), tuple(answers), queue)


def _ask(question: Question, place: str, key: Any) -> str | None:
    """Show a question; what is right, empty where it is skipped, None where the person stops."""
    say(f"\n{question.id} ({place})", style="bold")
    say(question.request[:_LONGEST])
    for number, answer in enumerate(question.answers[:_MOST_SHOWN], 1):
        say(f"  {number}  {' '.join(answer.split())[:_LONGEST]}")
    say(_HELP, style="dim")
    while True:
        pressed = key()
        if pressed in ("q", "\x03", "\x04", ""):
            return None
        if pressed == "s":
            return ""
        if pressed == "t":
            return input("right is: ").strip()
        if pressed.isdigit() and 0 < int(pressed) <= len(question.answers[:_MOST_SHOWN]):
            return question.answers[int(pressed) - 1]


@contextlib.contextmanager
def _one_key() -> Iterator[Any]:
    """Read one key at a time where there is a terminal, else a line."""
    import termios  # noqa: PLC0415 - not everywhere
    import tty  # noqa: PLC0415

    if not sys.stdin.isatty():
        yield lambda: sys.stdin.readline().strip()[:1]
        return

    def read_one() -> str:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        try:
            tty.setcbreak(descriptor)
            return sys.stdin.read(1)
        finally:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

    yield read_one
