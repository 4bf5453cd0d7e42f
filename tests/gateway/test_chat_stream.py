"""Reading a stream: the commit rule, its end, what it said."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstack.application.gateway.dialects.chat_stream import LARGEST_HELD, ChatStream, choices_wanted
from upstack.core.errors import Failure


def event(
    delta: dict[str, Any] | None = None, *, finish: str | None = None, index: int | None = 0, **more: Any
) -> bytes:
    """One chunk as providers send it."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "model": "m", "choices": [choice], **more}).encode() + b"\n\n"


ROLE = event({"role": "assistant", "content": ""})
HELLO = event({"content": "Grüße, "})
WORLD = event({"content": "Welt 🌍"})
STOP = event(finish="stop")
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"


def stream(*, strip_usage: bool = False, keep: int = 1 << 20, choices: int = 1) -> ChatStream:
    """A fresh one."""
    return ChatStream(strip_usage=strip_usage, keep=keep, choices=choices)


def message(read: ChatStream) -> dict[str, Any]:
    """The message of its first choice, as it is kept."""
    found: dict[str, Any] = json.loads(read.answer() or b"")["choices"][0]["message"]
    return found


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
        {"audio": {"id": "a"}},
        {"content": "", "images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
        {"content": None, "never_heard_of": "x"},
    ],
)
def test_every_kind_of_first_delta_commits(delta: dict[str, Any]) -> None:
    """Reasoning, tool calls, refusals, images and whatever comes up next are content too."""
    read = stream()
    read.feed(ROLE)
    assert read.feed(event(delta)).endswith(event(delta))
    assert read.committed


@pytest.mark.parametrize(
    "delta",
    [{}, {"role": "assistant"}, {"content": None, "images": [], "audio": {}, "refusal": "", "tool_calls": None}],
)
def test_an_empty_delta_does_not_commit(delta: dict[str, Any]) -> None:
    """A role and empty members say nothing yet: another route may still answer."""
    read = stream()
    assert read.feed(event(delta)) == b""
    assert not read.committed


def test_an_image_of_any_size_is_content() -> None:
    """A stream of one large image and no text is an answer, and is kept."""
    images = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2 * LARGEST_HELD}}]
    read = stream(keep=8 * LARGEST_HELD)
    for part in (ROLE, event({"content": "", "images": images}), STOP, DONE):
        read.feed(part)
    assert read.broken is None
    assert message(read) == {"role": "assistant", "content": None, "images": images}


def test_content_of_another_shape_is_kept() -> None:
    """Content that is null at first, or comes in parts, is put together as well."""
    read = stream()
    parts = [{"type": "text", "text": "x"}]
    read.feed(event({"content": None}) + event({"content": parts}) + event({"content": "y"}) + STOP)
    assert message(read)["content"] == [*parts, {"type": "text", "text": "y"}]


def test_members_nobody_here_has_heard_of_are_kept() -> None:
    """Texts are joined, lists extended, objects joined member by member; of anything else the last one stands."""
    read = stream()
    for delta in (
        {"role": "assistant", "thought": "a", "reasoning_details": [{"text": "x"}], "score": 1},
        {"content": "hi", "thought": "b", "reasoning_details": [{"text": "y"}], "score": 2},
        {"audio": {"id": "a1", "transcript": "he"}},
        {"audio": {"id": "a1", "transcript": "llo"}, "thought": None},
    ):
        read.feed(event(delta))
    read.feed(STOP)
    assert message(read) == {
        "role": "assistant",
        "content": "hi",
        "thought": "ab",
        "reasoning_details": [{"text": "x"}, {"text": "y"}],
        "score": 2,
        "audio": {"id": "a1", "transcript": "hello"},
    }


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


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_may_have_several_data_lines(end: bytes) -> None:
    """They are one payload, also where the event comes in one read, and pass unchanged."""
    lines = b'data: {"choices":\ndata: [{"index":0,"delta":{"content":"hi"}}]}\n\n'.replace(b"\n", end)
    read = stream()
    assert read.feed(lines + b": next") == lines
    assert message(read)["content"] == "hi"
    read = stream()
    passed = read.feed(lines) + read.end()
    assert passed.rstrip() == lines.rstrip()
    assert message(read)["content"] == "hi"


def test_a_lone_carriage_return_may_end_a_line() -> None:
    """Also in an event that otherwise looks like one line."""
    lines = b'data: {"choices":\rdata: [{"index":0,"delta":{"content":"hi"}}]}\n\n'
    read = stream()
    assert read.feed(lines) == lines
    assert message(read)["content"] == "hi"


@pytest.mark.parametrize(("first", "second"), [(r"\ud83d", r"\ude00"), (r"\uD83D", r"\uDE00")])
def test_a_character_split_over_two_deltas_is_whole_again(first: str, second: str) -> None:
    """Each half passes as it came; what is kept has the character."""
    halves = [
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % half.encode()
        for half in (first, second)
    ]
    read = stream()
    assert [read.feed(half) for half in halves] == halves
    read.feed(STOP + DONE)
    assert read.broken is None
    assert message(read)["content"] == "😀"


def test_half_a_character_alone_is_no_reason_to_cut_a_stream() -> None:
    """It passes as it came, and stands as a question mark in what is kept."""
    half = rb'data: {"choices":[{"index":0,"delta":{"content":"\ud83d","x":"\\ud83d"}}]}' + b"\n\n"
    read = stream()
    assert read.feed(half + WORLD + STOP) == half + WORLD + STOP
    assert message(read) == {"role": "assistant", "content": "?Welt 🌍", "x": "\\ud83d"}


@pytest.mark.parametrize("payload", [rb'{"choices":[{"delta":{"content":"\ud83d}]}', rb'{"choices":"\ud83d"}'])
def test_half_a_character_excuses_no_other_fault(payload: bytes) -> None:
    """Cut JSON and wrong types stay malformed."""
    read = stream()
    read.feed(b"data: " + payload + b"\n\n")
    assert read.broken is not None
    assert read.broken.failure is Failure.MALFORMED


def usage_of(*told: str) -> tuple[int, int] | None:
    """What a stream that told these usages is said to have used."""
    read = stream()
    for usage in told:
        read.feed(b'data: {"choices":[{"delta":{"content":"x"}}],"usage":' + usage.encode() + b"}\n\n")
    return None if read.usage is None else (read.usage.input_tokens, read.usage.output_tokens)


def test_the_last_usage_counts() -> None:
    """It replaces the one before, also where it makes no sense; `null` tells nothing and replaces nothing."""
    partial, final = '{"prompt_tokens":10,"completion_tokens":1}', '{"prompt_tokens":10,"completion_tokens":7}'
    assert usage_of(partial, final) == (10, 7)
    assert usage_of(partial, final, "null") == (10, 7)
    assert usage_of(partial, '{"prompt_tokens":-10,"completion_tokens":7}') is None
    assert usage_of(partial, f'{{"prompt_tokens":{10**30},"completion_tokens":7}}') is None
    assert usage_of(partial, '"seven"') is None
    assert usage_of("null") is None


def test_an_index_of_null_is_the_first_choice() -> None:
    """Some providers number nothing."""
    read = stream()
    read.feed(event({"content": "a"}, index=None) + event({"content": "b"}) + event(finish="stop", index=None))
    read.end()
    assert read.broken is None
    assert message(read)["content"] == "ab"


def test_a_byte_order_mark_is_passed_over_at_the_start_alone() -> None:
    """The first event counts, and passes as it came."""
    mark = b"\xef\xbb\xbf"
    read = stream()
    assert read.feed(mark + HELLO + WORLD) == mark + HELLO + WORLD
    assert message(read)["content"] == "Grüße, Welt 🌍"
    read.feed(mark + HELLO)
    assert message(read)["content"] == "Grüße, Welt 🌍"


def test_no_event_goes_out_with_half_a_line_end() -> None:
    """A carriage return at the end of a read waits for its line feed, or for the end."""
    hello, stop = HELLO.replace(b"\n", b"\r\n"), STOP.replace(b"\n", b"\r\n")
    read = stream()
    assert read.feed(hello[:-1]) == b""
    assert read.feed(b"\n") == hello
    assert read.feed(stop[:-1]) == b""
    assert read.end() == stop
    assert read.broken is None


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


def test_without_done_every_choice_asked_for_must_finish() -> None:
    """A body of two choices that ends after the first of them was cut."""
    read = stream(choices=2)
    read.feed(HELLO + STOP)
    read.end()
    assert read.broken is not None
    assert read.broken.failure is Failure.TRUNCATED
    read = stream(choices=2)
    read.feed(HELLO + STOP + event({"content": "x"}, index=1) + event(finish="stop", index=1))
    read.end()
    assert read.broken is None


@pytest.mark.parametrize(("n", "choices"), [(b"2", 2), (b"null", 1), (b'"2"', 1), (b"[]", 1), (b"1", 1)])
def test_the_choices_asked_for(n: bytes, choices: int) -> None:
    """What is no number is the provider's to judge."""
    assert choices_wanted(msgspec.Raw(n)) == choices


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


def test_nothing_is_remembered_where_nothing_is_kept() -> None:
    """With no room there is no answer to put together; the stream is read all the same."""
    read = stream(keep=0)
    assert read.feed(HELLO + STOP + USAGE + DONE) == HELLO + STOP + USAGE
    assert read.done
    assert read.usage is not None
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


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=3) | st.just("\ud83d"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3) | st.just("index"), inner, max_size=2)
    ),
    max_leaves=4,
)
MEMBERS = st.sampled_from(["content", "tool_calls", "function_call", "audio", "images", "role", "x"])


@given(st.lists(st.tuples(st.dictionaries(MEMBERS, ODD, max_size=3), ODD, ODD), max_size=4))
def test_no_members_raise(chunks: list[tuple[dict[str, Any], Any, Any]]) -> None:
    """Whatever the members hold, the chunks pass, and putting them together gives JSON or nothing."""
    read = stream()
    for delta, logprobs, usage in chunks:
        choice = {"delta": delta, "logprobs": logprobs}
        read.feed(b"data: " + json.dumps({"choices": [choice], "usage": usage}).encode() + b"\n\n")
    assert read.broken is None
    assert read.usage is None or read.usage.input_tokens >= 0
    answer = read.answer()
    assert answer is None or json.loads(answer)
