"""How each fault of content is played: HTTP is right, and what it carries is not."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from upstack.testing.answers import Answer
from upstack.testing.broken_http import MIB, Player
from upstack.testing.case import Case
from upstack.testing.faults import Fault
from upstack.testing.wire import DONE, LAST_CHUNK, STREAM_HEAD, chunks, error_body, event, response

_ERROR = error_body("the model is overloaded", code="overloaded")
_HTML = b"<!doctype html><html><body>Please sign in to the network</body></html>"


def _streamed(events: Iterable[bytes]) -> bytes:
    return STREAM_HEAD + chunks(events) + LAST_CHUNK


def _spoilt(plain: bytes, spoiler: bytes) -> Player:
    """Send `plain` for a plain answer, and the event `spoiler` in the middle of a stream that goes on after it."""

    def play(case: Case) -> bytes:
        if not case.stream:
            return response(200, plain)
        before, after = case.events
        return _streamed([*before, spoiler, *after])

    return play


def _error_mid_stream(case: Case) -> bytes:
    return _streamed([*case.events[0], event(_ERROR)]) if case.stream else response(200, _ERROR)


def _error_first(case: Case) -> bytes:
    return _streamed([event(_ERROR)]) if case.stream else response(200, _ERROR)


def _truncated(case: Case) -> bytes:
    """Cut the JSON and frame what is left well."""
    if not case.stream:
        return response(200, case.before)
    piece = case.next_piece
    return _streamed([*case.events[0], piece[: len(piece) // 2]])


def _malformed(case: Case) -> bytes:
    """Python's idea of JSON, in every event."""
    wrong = b"{'id': 'chatcmpl-1', 'choices': [None, True]}"
    return _streamed([event(wrong), event(wrong), DONE]) if case.stream else response(200, wrong)


def _invalid_utf8(case: Case) -> bytes:
    """Put bytes that no UTF-8 holds into a string of the answer."""
    said = Answer("@@@")
    spoilt = Case(case.request, said, case.options, case.rng)
    if not case.stream:
        return response(200, spoilt.body.replace(b"@@@", b"\xff\xc0\xaf"))
    before, after = case.events
    delta = next(each for each in spoilt.events[0] + spoilt.events[1] if b"@@@" in each)
    return _streamed([*before, delta.replace(b"@@@", b"\xff\xc0\xaf"), *after])


def _empty(case: Case) -> bytes:
    if case.stream:
        return _streamed([DONE])
    answer = msgspec.json.decode(case.body)
    return response(200, msgspec.json.encode({**answer, "choices": []}))


def _without_end(case: Case, *, keep_finish: bool) -> bytes:
    """Leave out [DONE], and the finish reason where told to; a plain answer has neither and is good."""
    if not case.stream:
        return case.whole
    before, after = case.events
    kept = [each for each in before + after if each != DONE and (keep_finish or b'"finish_reason":"' not in each)]
    return _streamed(kept)


def _twice(case: Case) -> bytes:
    if not case.stream:
        return case.whole
    before, after = case.events
    return _streamed([*before, before[-1], *after])


def _huge(case: Case) -> bytes:
    text = "word " * ((case.options.size_bytes or 2 * MIB) // 5)
    return Case(case.request, Answer(text, chunks=(text,)), case.options, case.rng).whole


CONTENT_PLAYERS: dict[Fault, Player] = {
    Fault.WRONG_CONTENT_TYPE: lambda _: response(200, _HTML, content_type="text/html; charset=utf-8"),
    Fault.ERROR_BODY_200: lambda _: response(200, _ERROR),
    Fault.ERROR_IN_STREAM: _error_first,
    Fault.ERROR_MID_STREAM: _error_mid_stream,
    Fault.TRUNCATED_JSON: _truncated,
    Fault.MALFORMED_JSON: _malformed,
    Fault.MALFORMED_SSE: _spoilt(b"data: not json", event(b"{not json")),
    Fault.INVALID_UTF8: _invalid_utf8,
    Fault.EMPTY_STREAM: _empty,
    Fault.EMPTY_STOP: lambda case: Case(case.request, Answer(""), case.options, case.rng).whole,
    Fault.MISSING_DONE: lambda case: _without_end(case, keep_finish=True),
    Fault.MISSING_FINISH: lambda case: _without_end(case, keep_finish=False),
    Fault.DUPLICATE_CHUNK: _twice,
    Fault.HUGE_EVENT: _huge,
}
