"""What a ledger has captured of a task: each request with what the teacher said, and what people said is right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from upstack.application.proving.rows import messages_of
from upstack.core.completion import content_of
from upstack.core.store.checks import Check, read_checks
from upstack.core.types import STUDENT, Receipt
from upstack.foundation.students.student import read_by_student
from upstack.inference.router import shadow_task


class Captured(msgspec.Struct, frozen=True):
    """One request of a task."""

    id: str  # of its receipt
    task: str
    at: float  # Unix seconds
    messages: tuple[Mapping[str, Any], ...]
    text: str  # what a student reads of it
    check: bool  # its coin fell
    teacher: str | None = None  # what the reference answered; None: it was not asked
    provider: str = ""  # of that answer
    model: str = ""
    truth: str | None = None  # what a reviewer or a test said is right
    claims: tuple[tuple[str, str], ...] = ()  # source, and what it says is right
    subject: str | None = None


def capture(place: str, task: str, reference: tuple[str, ...], keystore: str | None = None) -> list[Captured]:
    """Read all requests of a task, in order; `reference`: the names that the reference's route goes by."""
    checks = read_checks(place, task, shadow_task(task), "", keystore, every=True)
    return [_captured(check, reference) for check in checks if not check.gone and check.receipt.request is not None]


def captured(receipt: Receipt) -> Captured:
    """One receipt by itself: whoever answered it taught."""
    last = receipt.attempts[-1] if receipt.attempts else None
    names = () if last is None or last.provider == STUDENT else (f"{last.provider}/{last.model}",)
    return _captured(Check(receipt, (), None, {}, gone=False), names)


def _captured(check: Check, reference: tuple[str, ...]) -> Captured:
    receipt = check.receipt
    messages = messages_of(receipt.request or b"")
    found = next((each for each in (receipt, *check.beside) if _is_of(each, reference)), None)
    last = found.attempts[-1] if found is not None else None
    return Captured(
        id=receipt.id,
        task=receipt.task or "",
        at=receipt.created_at,
        messages=messages,
        text=read_by_student(messages),
        check=receipt.coin is not None,
        teacher=None if found is None else content_of(found.answer),
        provider="" if last is None else last.provider,
        model="" if last is None else last.model,
        truth=None if check.truth is None else check.truth.decode("utf-8", "replace"),
        claims=tuple((each.source, each.answer.decode("utf-8", "replace")) for each in check.claims),
        subject=receipt.subject,
    )


def _is_of(receipt: Receipt, reference: tuple[str, ...]) -> bool:
    """Whether the reference gave a receipt's answer."""
    if receipt.state != "answered" or receipt.answer is None or not receipt.attempts:
        return False
    last = receipt.attempts[-1]
    return receipt.route in reference or f"{last.provider}/{last.model}" in reference
