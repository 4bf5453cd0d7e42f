from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests import plain
from tests.testing.kit import TEXT, ask_raw, chat
from upstack.testing import EchoProvider, End


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoProvider]:
    """One echo for all tests of this file."""
    with EchoProvider() as provider:
        yield provider


def post(provider: EchoProvider, **fields: Any) -> dict[str, Any]:
    """The body of a plain answer."""
    answer = plain.post(f"{provider.base_url}/chat/completions", json=chat(**fields))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def stream(provider: EchoProvider, **fields: Any) -> list[dict[str, Any]]:
    """The events of a stream, which must end with [DONE]."""
    answer = ask_raw(provider, chat(stream=True, **fields))
    assert answer.end is End.WHOLE
    assert answer.header("content-type") == "text/event-stream; charset=utf-8"
    *events, done = answer.events
    assert done == b"[DONE]"
    return [json.loads(event) for event in events]


def test_a_plain_answer_is_a_chat_completion(echo: EchoProvider) -> None:
    """It echoes the last user message and counts words as tokens."""
    body = post(echo)
    (choice,) = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": TEXT, "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert body["usage"] == {"prompt_tokens": 6, "completion_tokens": 6, "total_tokens": 12}
    assert (body["object"], body["model"]) == ("chat.completion", "echo-1")
    assert body["id"] != post(echo)["id"]


def test_content_parts_are_flattened(echo: EchoProvider) -> None:
    """The text parts of the last user message are joined; images and earlier messages are passed over."""
    parts = [{"type": "text", "text": "a b"}, {"type": "image_url", "image_url": {"url": "data:"}}]
    messages = [
        {"role": "user", "content": "before"},
        {"role": "user", "content": [*parts, {"type": "text", "text": "c"}]},
        {"role": "assistant", "content": None},
    ]
    assert post(echo, messages=messages)["choices"][0]["message"]["content"] == "a b c"


def test_given_usage_is_reported() -> None:
    """Tokens may be given instead of counted; cached ones are a detail of the input."""
    with EchoProvider(input_tokens=1000, output_tokens=50, cached_tokens=800) as provider:
        usage = post(provider)["usage"]
    assert usage["prompt_tokens"] == 1000
    assert usage["completion_tokens"] == 50
    assert usage["prompt_tokens_details"] == {"cached_tokens": 800}


def test_a_stream_sends_the_role_then_words_then_the_end(echo: EchoProvider) -> None:
    """Each event is an HTTP chunk of its own; usage is absent unless asked for."""
    events = stream(echo, text="a  b c")
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas[1:-1]] == ["a ", " ", "b ", "c"]
    assert deltas[-1] == {}
    assert [event["choices"][0]["finish_reason"] for event in events] == [None] * 5 + ["stop"]
    assert all("usage" not in event for event in events)
    assert len({event["id"] for event in events}) == 1
    raw = ask_raw(echo, chat("a b", stream=True))
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in raw.chunks)


def test_a_stream_ends_with_usage_when_asked(echo: EchoProvider) -> None:
    """`include_usage` adds an event without choices, and a null in the others."""
    *events, last = stream(echo, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 6, "completion_tokens": 6, "total_tokens": 12}
    assert all(event["usage"] is None for event in events)


def test_n_choices(echo: EchoProvider) -> None:
    """`n` makes that many choices, plain and streamed, all of them counted."""
    body = post(echo, n=3)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 18
    events = stream(echo, n=2)
    for index in (0, 1):
        said = [each["choices"][0] for each in events if each["choices"][0]["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in said) == TEXT
        assert said[-1]["finish_reason"] == "stop"


TOOL = {
    "type": "function",
    "function": {
        "name": "note",
        "parameters": {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "level": {"enum": ["low", "high"]},
                "count": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
                "where": {"type": "object", "properties": {"urgent": {"type": "boolean"}}},
                "owner": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            },
        },
    },
}
ARGUMENTS = {"text": TEXT, "level": "low", "count": 0, "tags": [], "where": {"urgent": False}, "owner": None}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "note"}}])
def test_a_forced_tool_is_called(echo: EchoProvider, choice: Any) -> None:
    """A tool choice that forces a call gets one, with arguments that fit the tool's schema."""
    message = post(echo, tools=[TOOL], tool_choice=choice)["choices"][0]
    assert message["finish_reason"] == "tool_calls"
    assert message["message"]["content"] is None
    (call,) = message["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "note")
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS


def test_a_streamed_tool_call_comes_in_pieces(echo: EchoProvider) -> None:
    """The first piece names the call, the others bring its arguments."""
    events = stream(echo, tools=[TOOL], tool_choice="required")
    pieces = [call for event in events for call in event["choices"][0]["delta"].get("tool_calls", [])]
    assert pieces[0]["function"] == {"name": "note", "arguments": ""}
    assert pieces[0]["id"] == "call_1"
    assert len(pieces) == 3
    assert json.loads("".join(piece["function"]["arguments"] for piece in pieces)) == ARGUMENTS
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_an_offered_tool_need_not_be_called(echo: EchoProvider, choice: Any) -> None:
    """Without force the answer is text."""
    assert post(echo, tools=[TOOL], tool_choice=choice)["choices"][0]["message"]["content"] == TEXT


def test_json_is_answered_in_json(echo: EchoProvider) -> None:
    """A response format makes the content JSON, one with a schema makes it fit."""
    plain = post(echo, response_format={"type": "json_object"})
    assert json.loads(plain["choices"][0]["message"]["content"]) == {"echo": TEXT}
    schema = {"name": "note", "schema": TOOL["function"]["parameters"]}  # type: ignore[index] # a dictionary
    fitted = post(echo, response_format={"type": "json_schema", "json_schema": schema})
    assert json.loads(fitted["choices"][0]["message"]["content"]) == ARGUMENTS


def test_logprobs_are_well_formed(echo: EchoProvider) -> None:
    """Each token has its log probability, bytes and alternatives, the likeliest first."""
    entries = post(echo, logprobs=True, top_logprobs=3)["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == TEXT
    assert bytes(entries[0]["bytes"]) == entries[0]["token"].encode()
    tops = [top["logprob"] for top in entries[0]["top_logprobs"]]
    assert len(tops) == 3
    assert tops == sorted(tops, reverse=True)
    assert all(top < 0 for top in tops)
    streamed = [event["choices"][0] for event in stream(echo, logprobs=True)]
    assert [choice["logprobs"]["content"][0]["token"] for choice in streamed if choice["delta"].get("content")]


def test_a_reasoning_model_reasons_first(echo: EchoProvider) -> None:
    """A model called "reason" sends `reasoning_content` before its content and counts those tokens."""
    body = post(echo, model="echo-reason")
    assert body["choices"][0]["message"]["reasoning_content"].endswith(TEXT)
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 9
    assert body["usage"]["completion_tokens"] == 15
    kinds = [list(event["choices"][0]["delta"]) for event in stream(echo, model="echo-reason")]
    assert kinds == [["role", "content"], *[["reasoning_content"]] * 9, *[["content"]] * 6, []]


def test_models_are_listed(echo: EchoProvider) -> None:
    """`GET /v1/models` answers in the OpenAI shape."""
    listed = plain.get(f"{echo.base_url}/models").json()
    assert [row["id"] for row in listed["data"]] == ["echo-1", "echo-reason"]
    assert listed["object"] == "list"


def test_delays_are_kept() -> None:
    """The headers go out at once, the first byte and the chunks when they are due."""
    with (
        EchoProvider(first_byte_delay_s=0.05, between_chunks_s=0.02) as provider,
        plain.stream("POST", f"{provider.base_url}/chat/completions", json=chat("a b", stream=True)) as answer,
    ):
        pieces = list(answer.iter_raw())
        assert answer.elapsed.total_seconds() >= 0.05 + 4 * 0.02 - 0.01
        assert len(pieces) > 1  # five, unless the machine is busy
