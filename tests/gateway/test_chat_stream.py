"""Reading a stream: the commit rule, its end, what it said."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstack.application.gateway.dialects.chat_stream import LARGEST_HELD, ChatStream
from upstack.core.errors import Failure


def event(delta: dict[str, Any] | None = None, *, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """One chunk as providers send it."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": [choice], **more}).encode() + b"\n\n"


ROLE = event({"role": "assistant", "content": ""})
HELLO = event({"content": "Grüße, "})
WORLD = event({"content": "Welt 🌍"})
STOP = event(finish="stop")
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"


def stream(*, strip_usage: bool = False, keep: int = 1 << 20) -> ChatStream:
    """A fresh one."""
    return ChatStream(strip_usage=strip_usage, keep=keep)


def test_nothing_is_released_before_the_first_content() -> None:
    """Role deltas and comments are held back and go out, unchanged and in order, with the first content."""
    read = stream()
    assert read.feed(b": keep-alive\n\n") == b""
    assert read.feed(ROLE) == b""
    assert not read.committed
    assert read.feed(HELLO) == b": keep-alive\n\n" + ROLE + HELLO
    assert read.committed
    assert read.feed(WORLD) == WORLD


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}]},
        {"function_call": {"name": "f"}},
        {"content": [{"type": "text", "text": "x"}]},
    ],
)
def test_every_kind_of_first_delta_commits(delta: dict[str, Any]) -> None:
    """Reasoning, tool calls, refusals and content parts are content too."""
    read = stream()
    read.feed(ROLE)
    assert read.feed(event(delta)).endswith(event(delta))
    assert read.committed


def test_done_is_withheld_for_us_to_send() -> None:
    """`[DONE]` ends the stream and is not passed on."""
    read = stream()
    assert read.feed(HELLO + STOP + DONE) == HELLO + STOP
    assert read.done
    assert read.broken is None


def test_usage_is_read_and_stripped_only_where_nobody_asked() -> None:
    """The usage event reaches only callers who asked for it."""
    asked, unasked = stream(), stream(strip_usage=True)
    asked.feed(HELLO)
    unasked.feed(HELLO)
    assert asked.feed(USAGE) == USAGE
    assert unasked.feed(USAGE) == b""
    assert unasked.usage is not None
    assert (unasked.usage.input_tokens, unasked.usage.output_tokens) == (3, 2)


def test_answer_is_one_completion() -> None:
    """The deltas of all choices, tool calls included, come together as a completion."""
    read = stream()
    for part in (
        ROLE + HELLO + WORLD,
        event({"content": "two"}, index=1),
        event(
            {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{"}}]}
        ),
        event({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}),
        event(finish="tool_calls") + event(finish="stop", index=1) + USAGE + DONE,
    ):
        read.feed(part)
    whole = json.loads(read.answer() or b"")
    first, second = whole["choices"]
    assert first["message"]["content"] == "Grüße, Welt 🌍"
    assert first["message"]["tool_calls"] == [
        {"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert (first["finish_reason"], second["finish_reason"]) == ("tool_calls", "stop")
    assert second["message"]["content"] == "two"
    assert whole["usage"]["total_tokens"] == 5
    assert whole["object"] == "chat.completion"


@pytest.mark.parametrize(
    ("data", "failure"),
    [
        (b"data: {not json}\n\n", Failure.MALFORMED),
        (b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n', Failure.MALFORMED),
        (b'data: {"choices":"none"}\n\n', Failure.MALFORMED),
        (b'data: {"error":{"message":"overloaded"}}\n\n', Failure.ERROR_IN_STREAM),
        (b"data: " + b"[" * 100_000 + b"\n\n", Failure.MALFORMED),
    ],
)
def test_nonsense_breaks_the_stream_after_what_was_good(data: bytes, failure: Failure) -> None:
    """What came before the fault is passed on; the fault itself is not."""
    read = stream()
    assert read.feed(HELLO + data + WORLD) == HELLO
    assert read.broken is not None
    assert read.broken.failure is failure


def test_an_end_without_its_end_is_truncated() -> None:
    """A body that ends after content but before a finish reason was cut."""
    read = stream()
    read.feed(HELLO)
    read.end()
    assert read.broken is not None
    assert read.broken.failure is Failure.TRUNCATED


def test_an_empty_body_is_truncated() -> None:
    """A body without any event is no answer."""
    read = stream()
    read.end()
    assert read.broken is not None


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"id":"c","choices":[{"index":0,"delta":{"content":"x"},"logprobs":["a","b"]}]}',
        b'{"id":"c","choices":[{"index":0,"delta":{"tool_calls":[{"index":[1],"function":7}]}}]}',
        b'{"id":"\xff","choices":[{"index":0,"delta":{"content":"x"}}]}',
        b'{"id":123456789012345678901234567890,"choices":[{"index":0,"delta":{"content":"x"}}]}',
    ],
)
def test_odd_members_never_keep_an_answer_from_its_end(chunk: bytes) -> None:
    """What cannot be kept as a completion still passes, and reading it together never raises."""
    read = stream()
    passed = read.feed(b"data: " + chunk + b"\n\n" + STOP + DONE)
    assert chunk in passed
    assert read.done
    read.answer()


def test_done_without_any_choice_is_no_answer() -> None:
    """A stream of nothing but `[DONE]` counts as a failure."""
    read = stream()
    read.feed(DONE)
    assert read.broken is not None
    assert read.broken.failure is Failure.MALFORMED


def test_a_long_event_in_small_pieces_is_read_in_linear_time() -> None:
    """Every byte of an unfinished event is looked at once: two megabytes in pieces of eight take no minutes."""
    read = stream()
    long = event({"content": "x" * 2_000_000})
    passed = b"".join(read.feed(long[start : start + 8]) for start in range(0, len(long), 8))
    assert passed == long


def test_missing_done_after_a_finish_reason_is_an_end() -> None:
    """Some providers send no `[DONE]`; a finish reason for every choice is an end as well."""
    read = stream()
    read.feed(HELLO + STOP)
    assert read.end() == b""
    assert read.broken is None


def test_last_event_without_its_blank_line_still_counts() -> None:
    """A final event that lacks only its blank line is passed on, completed."""
    read = stream()
    read.feed(HELLO)
    assert read.end() == b""
    read = stream()
    read.feed(HELLO + STOP.rstrip(b"\n"))
    assert read.end().strip() == STOP.strip()
    assert read.broken is None


def test_held_bytes_are_bounded() -> None:
    """A provider that sends comments for ever without content is given up."""
    read = stream()
    for _ in range(LARGEST_HELD // 1000 + 2):
        read.feed(b": " + b"x" * 1000 + b"\n\n")
    assert read.broken is not None
    assert read.broken.failure is Failure.TOO_LARGE


def test_an_answer_above_the_limit_is_not_kept_but_still_passed() -> None:
    """What the ledger would keep is bounded; what the caller gets is not."""
    read = stream(keep=300)
    passed = b"".join(read.feed(HELLO) for _ in range(100))
    assert passed == HELLO * 100
    assert read.answer() is None


@given(cuts=st.lists(st.integers(0, 2000), max_size=30), newline=st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_any_split_reads_the_same(cuts: list[int], newline: bytes) -> None:
    """However the bytes are cut, inside characters and line ends too, the same comes out."""
    events = [b": hi\n\n", ROLE, HELLO, b"event: message\nid: 7\n" + WORLD, STOP, USAGE, DONE]
    whole = b"".join(events).replace(b"\n", newline)
    expected = b"".join(events[:-1]).replace(b"\n", newline)
    places = [0, *sorted(cut % len(whole) for cut in cuts), len(whole)]
    read = stream()
    out = b"".join(read.feed(whole[start:end]) for start, end in itertools.pairwise(places) if end > start)
    out += read.end()
    assert read.broken is None
    assert read.done
    assert out.strip() == expected.strip()
    assert json.loads(read.answer() or b"")["choices"][0]["message"]["content"] == "Grüße, Welt 🌍"


@given(st.binary(max_size=400))
def test_no_bytes_raise(data: bytes) -> None:
    """Whatever a provider sends, reading it never raises."""
    read = stream()
    read.feed(data)
    if read.broken is None:
        read.end()
    read.answer()
