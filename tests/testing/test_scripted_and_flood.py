from __future__ import annotations

import asyncio
import json
import time

from tests import plain
from tests.testing.kit import ask_raw, chat
from upstack.testing import (
    Answer,
    ChatRequest,
    End,
    FloodProvider,
    Move,
    RawClient,
    ScriptedProvider,
    ToolCall,
    error_response,
    eventually,
)

MIB = 1024 * 1024


def test_a_list_is_answered_in_order_and_then_exhausted() -> None:
    """Each request gets the next answer; one too many is a 500 that says so."""
    with ScriptedProvider([Answer("one"), error_response(503, "later"), Answer("two")]) as provider:
        answers = [ask_raw(provider, chat()) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 503, 200, 500]
    assert (answers[0].text, answers[2].text) == ("one", "two")
    assert answers[3].json()["error"]["code"] == "script_exhausted"


def test_a_function_answers_by_the_request() -> None:
    """The function sees the decoded request."""

    def answer(request: ChatRequest) -> Answer:
        return Answer(f"{request.model}: {request.last_user_text.upper()}")

    with ScriptedProvider(answer) as provider:
        assert ask_raw(provider, chat("hello")).text == "echo-1: HELLO"
        assert ask_raw(provider, chat("hello", stream=True)).text == "echo-1: HELLO"


def test_every_field_of_an_answer_is_on_the_wire() -> None:
    """Tokens of all kinds, reasoning, tool calls and the finish reason are sent as they were given."""
    answer = Answer(
        "text",
        tool_calls=(ToolCall("find", '{"q":1}', "call_a"), ToolCall("find", '{"q":2}', "call_b")),
        finish_reason="length",
        input_tokens=10,
        output_tokens=7,
        cached_tokens=4,
        reasoning_tokens=3,
        reasoning="hm",
    )
    with ScriptedProvider([answer]) as provider:
        body = ask_raw(provider, chat()).json()
    choice = body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["reasoning_content"] == "hm"
    assert [call["id"] for call in choice["message"]["tool_calls"]] == ["call_a", "call_b"]
    assert body["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


def test_chunks_are_cut_as_told() -> None:
    """A stream's pieces are those of the script, an empty one among them."""
    with ScriptedProvider([Answer("abc", chunks=("a", "", "bc"))]) as provider:
        events = [json.loads(event) for event in ask_raw(provider, chat(stream=True)).events[:-1]]
    assert [event["choices"][0]["delta"].get("content") for event in events] == ["", "a", "", "bc", None]


def test_usage_may_be_missing() -> None:
    """Some providers do not say what was used, not even when asked."""
    with ScriptedProvider(lambda _: Answer("x", report_usage=False)) as provider:
        assert "usage" not in ask_raw(provider, chat()).json()
        events = ask_raw(provider, chat(stream=True, stream_options={"include_usage": True})).events
    assert all(json.loads(event)["choices"] for event in events[:-1])


def test_delays_are_kept() -> None:
    """`delay_s` comes before the status line, `first_byte_delay_s` between headers and body."""
    with ScriptedProvider(lambda _: Answer("x", delay_s=0.1, first_byte_delay_s=0.3)) as provider:
        started = time.monotonic()
        with plain.stream("POST", f"{provider.base_url}/chat/completions", json=chat()) as answer:
            to_head = time.monotonic() - started
            assert json.loads(answer.read())["choices"][0]["message"]["content"] == "x"
            to_body = time.monotonic() - started
    assert to_head > 0.09
    assert to_body > 0.39
    assert to_body - to_head > 0.1


def test_bytes_and_steps_go_out_verbatim() -> None:
    """A script may hold the whole HTTP answer, or pieces, pauses and an abrupt end."""
    with ScriptedProvider(
        [b"HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nok", [b"HTTP/1.1 2", 0.02, Move.RESET]]
    ) as it:
        odd = ask_raw(it, chat())
        assert (odd.status, odd.body) == (299, b"ok")
        cut = ask_raw(it, chat())
        assert (cut.status, cut.end) == (0, End.RESET)


def test_a_flood_is_as_large_as_told() -> None:
    """Read to its end, the flood is a well-formed answer of the size asked for, streamed and plain."""
    with FloodProvider(2, event_bytes=1000) as provider:
        streamed = ask_raw(provider, chat(stream=True, stream_options={"include_usage": True}))
        plain = ask_raw(provider, chat())
    assert streamed.end is plain.end is End.WHOLE
    assert streamed.events[-1] == b"[DONE]"
    assert all(990 <= len(piece) <= 1000 for piece in streamed.chunks[1:2000])
    assert abs(len(streamed.body) - 2 * MIB) < 30_000
    assert len(plain.text) == 2 * MIB


def test_a_flood_waits_for_its_reader() -> None:
    """Without a reader the kernel's buffers fill and nothing more is taken; hanging up is noticed at once."""

    async def go() -> None:
        async with RawClient(provider.port, receive_buffer=64 * 1024) as client:
            await client.post(chat(stream=True))
            await eventually(lambda: provider.bytes_accepted > 0, "the flood has started")
            await asyncio.sleep(0.2)
            accepted = provider.bytes_accepted
            await asyncio.sleep(0.2)
            assert provider.bytes_accepted == accepted < 16 * MIB
            for _ in range(400):
                await client.read_some()
            await eventually(lambda: provider.bytes_accepted > accepted, "reading lets it go on")
            left = time.monotonic()
        await eventually(lambda: len(provider.disconnects) == 1, "the client has left")
        assert provider.disconnects[0] - left < 2.0
        assert 0 < provider.bytes_accepted < 100 * MIB

    with FloodProvider(200) as provider:
        asyncio.run(go())
    assert provider.bytes_accepted > 0
