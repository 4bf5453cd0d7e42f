from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from upstack.core.errors import ConfigError, SupplyError
from upstack.core.traffic import RecordedAnswer, TrafficRow, write_traffic
from upstack.core.types import Provider, Request, Route, Target
from upstack.foundation.backends.base import Call
from upstack.foundation.backends.replay import ReplayBackend, replay_providers

TEXT = "The bearing runs hot;\n  hält noch / bis Freitag. " * 20
SCORES = {"content": [{"token": "The", "logprob": -0.25, "bytes": None, "top_logprobs": []}]}


class Collector:
    """A receiver that keeps what came and may act on it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.status = 0
        self.headers: Mapping[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.over = asyncio.Event()
        self.on_chunk: Callable[[], None] = lambda: None

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """Keep it."""
        self.events.append("head")
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        """Keep it."""
        self.events.append("body")
        self.chunks.append(data)
        self.on_chunk()

    def on_end(self) -> None:
        """Note it."""
        self.events.append("end")
        self.over.set()

    def on_failure(self, error: SupplyError) -> None:
        """Fail the test: a replay does not break."""
        raise AssertionError(error)

    @property
    def body(self) -> bytes:
        """All that came."""
        return b"".join(self.chunks)


def row(content: str | None = TEXT, prompt: Any = "the pump hums", **changes: Any) -> TrafficRow:
    """A recorded request with one answer."""
    answer = RecordedAnswer(content=content, input_tokens=12, output_tokens=5, **changes)
    messages = ({"role": "system", "content": "be brief"}, {"role": "user", "content": prompt})
    return TrafficRow(id="r", task="t", messages=messages, answers={"acme/large": answer})


def target(name: str = "acme/large") -> Target:
    """The route a name stands for."""
    provider, _, model = name.partition("/")
    route = Route(
        name="any", provider=Provider(name=provider, backend="replay", base_url="replay:"), model=model, version="v"
    )
    return Target(route=route, credential=0, key="any")


def request(prompt: Any = "the pump hums", *, stream: bool = False, **fields: Any) -> Request:
    """A request as the gateway hands it on."""
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt}]
    body = {"model": "any", "stream": stream, "messages": messages, **fields}
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}
    return Request(model="any", stream=stream, wants_usage=False, fields=raw, body=msgspec.json.encode(body))


async def ask(backend: ReplayBackend, asked: Request, name: str = "acme/large") -> Collector:
    """Send one request and wait for the end of its answer."""
    got = Collector()
    backend.send(target(name), asked, got)
    assert got.events == []  # nothing is delivered inside send
    await asyncio.wait_for(got.over.wait(), 5)
    return got


def asked_of(source: Sequence[TrafficRow] | Path, asked: Request, name: str = "acme/large") -> Collector:
    """Ask a backend over these rows, in an event loop of its own."""

    async def run() -> Collector:
        return await ask(ReplayBackend(source), asked, name)

    return asyncio.run(run())


def sse(body: bytes) -> list[Any]:
    """Parse a whole event stream that ends in [DONE]."""
    assert body.endswith(b"\n\n")
    data = [event.removeprefix(b"data: ") for event in body.split(b"\n\n")[:-1]]
    assert data.pop() == b"[DONE]"
    return [json.loads(item) for item in data]


def test_a_plain_answer_is_the_recorded_one() -> None:
    """Content, model, usage and finish reason are those of the recording."""
    got = asked_of([row(finish_reason="length")], request())
    assert got.events == ["head", "body", "end"]
    assert (got.status, got.headers[b"content-type"]) == (200, b"application/json")
    answer = json.loads(got.body)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "large"
    assert answer["usage"] == {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": TEXT, "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("length", None)


@pytest.mark.parametrize("content", [TEXT, "one", "", None, " \n", "no" * 5000, "日本語" * 50, "a\x00\u2028b"])
def test_a_stream_says_the_same_in_pieces(content: str | None) -> None:
    """Role first, the content in small pieces that add up, the finish reason, the usage, and [DONE]."""
    got = asked_of([row(content)], request(stream=True))
    assert got.headers[b"content-type"].startswith(b"text/event-stream")
    first, *pieces, finish, usage = sse(got.body)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    texts = [piece["choices"][0]["delta"]["content"] for piece in pieces]
    assert "".join(texts) == (content or "")
    assert all(0 < len(text) <= 200 for text in texts)
    assert finish["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 17)
    assert len({chunk["id"] for chunk in (first, *pieces, finish, usage)}) == 1


def test_a_row_known_only_by_its_loss_answers_with_its_tokens() -> None:
    """Cost can be replayed where content was never recorded."""
    answer = json.loads(asked_of([row(None, loss=1.0)], request()).body)
    assert answer["choices"][0]["message"]["content"] == ""
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("content", [TEXT, ""])
@pytest.mark.parametrize("stream", [False, True])
def test_log_probabilities_come_when_asked_for(stream: bool, content: str) -> None:
    """They are in the choice, or once in a stream; unasked they stay away."""
    rows = [row(content, logprobs=SCORES)]
    asked = asked_of(rows, request(stream=stream, logprobs=True)).body
    unasked = asked_of(rows, request(stream=stream, logprobs=False)).body
    chunks = sse(asked) if stream else [json.loads(asked)]
    assert [c["logprobs"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]] == [SCORES]
    assert b"-0.25" not in unasked


def test_a_prompt_is_found_however_it_is_written() -> None:
    """Parts, white space and names do not matter; the words do."""
    parts = [{"type": "text", "text": " the  pump"}, {"type": "text", "text": "hums"}]
    assert asked_of([row()], request(parts)).status == 200
    assert asked_of([row(prompt=parts)], request()).status == 200
    assert asked_of([row()], request("the pump howls")).status == 400


def test_answers_to_a_repeated_prompt_take_turns_in_file_order() -> None:
    """Three rows with one prompt answer first, second, third, first, whatever else is asked between."""
    rows = [row("1"), row("2"), row("other", prompt="else"), row("2")]

    async def run() -> list[str]:
        backend = ReplayBackend(rows)
        said = []
        for _ in range(4):
            said.append(json.loads((await ask(backend, request())).body)["choices"][0]["message"]["content"])
            await ask(backend, request("else"))
        return said

    assert asyncio.run(run()) == ["1", "2", "2", "1"]


def said_in(got: Collector) -> list[str]:
    """The choices of an answer, plain or streamed."""
    if not got.headers[b"content-type"].startswith(b"text/event-stream"):
        return [choice["message"]["content"] for choice in json.loads(got.body)["choices"]]
    texts: dict[int, str] = {}
    for chunk in sse(got.body):
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    return [texts[index] for index in range(len(texts))]


def test_samples_take_their_turn_after_the_answers() -> None:
    """The same request again gets the next answer: those of the rows, whose loss is known, before their samples."""
    rows = [row("1", samples=("1a", "1b")), row("2", samples=("2a",)), row("else", prompt="else", samples=("e",))]

    async def run() -> list[str]:
        backend = ReplayBackend(rows)
        return [text for _ in range(6) for text in said_in(await ask(backend, request()))]

    assert asyncio.run(run()) == ["1", "2", "1a", "1b", "2a", "1"]


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_are_the_answer_and_then_its_samples(stream: bool) -> None:
    """With `n` each choice is whole, they start over where there are too few, and take no turn of anybody's."""
    rows = [row(TEXT, samples=("second", "third"), logprobs=SCORES, finish_reason="length")]

    async def run() -> list[Collector]:
        backend = ReplayBackend(rows)
        wanted = [2, 4, 1, None, 2]
        return [await ask(backend, request(stream=stream, n=n, logprobs=True)) for n in wanted]

    two, four, *one, again = asyncio.run(run())
    assert said_in(two) == said_in(again) == [TEXT, "second"]
    assert said_in(four) == [TEXT, "second", "third", TEXT]
    assert [said_in(each) for each in one] == [[TEXT], ["second"]]
    chunks = sse(four.body) if stream else [json.loads(four.body)]
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == ["length"] * 4
    assert [c["index"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]] == [0, 3], "samples have none"
    assert chunks[-1]["usage"] == {"prompt_tokens": 12, "completion_tokens": 20, "total_tokens": 32}


def test_several_choices_of_a_single_answer_are_all_alike() -> None:
    """Where nothing else was recorded, `n` repeats it."""
    assert said_in(asked_of([row("only")], request(n=3))) == ["only"] * 3


@pytest.mark.parametrize("n", [0, -1, 129, 10**30, 1.5, True, "2", [2]])
def test_a_number_of_choices_that_makes_no_sense_is_refused(n: Any) -> None:
    """As a provider would, with a 400 that says what is allowed."""
    got = asked_of([row()], request(n=n))
    assert (got.status, json.loads(got.body)["error"]["code"]) == (400, "invalid_n")
    assert "1 to 128" in json.loads(got.body)["error"]["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_not_recorded_is_a_clear_provider_error(stream: bool) -> None:
    """An unknown prompt is a 400, also where other models know it, and an unknown model a 404, in the OpenAI shape."""
    other = TrafficRow(
        id="o",
        task="t",
        messages=({"role": "user", "content": "else"},),
        answers={"acme/small": RecordedAnswer(content="x", input_tokens=1, output_tokens=1)},
    )
    cases = [
        (
            400,
            "acme/large",
            "my secret",
            "unknown_prompt",
            "acme/large has no recorded answer to this prompt; nor has any",
        ),
        (400, "acme/small", "the pump hums", "unknown_prompt", "no recorded answer to this prompt; others have"),
        (404, "acme/huge", "the pump hums", "model_not_found", "there are: acme/large, acme/small"),
    ]
    for status, name, prompt, code, said in cases:
        got = asked_of([row(), other], request(prompt, stream=stream), name)
        error = json.loads(got.body)["error"]
        assert (got.status, got.headers[b"content-type"], error["code"]) == (status, b"application/json", code)
        assert said in error["message"]
        assert "secret" not in error["message"]


@pytest.mark.parametrize(
    "messages", [None, 7, "hello", {}, ["hello"], [None], [{"role": "user", "content": [[]]}], b"[" * 10_000, b'"\xff"']
)
def test_messages_that_are_none_never_raise(messages: Any) -> None:
    """Whatever stands in `messages` gets a provider's 400, and the backend lives on."""
    raw = messages if isinstance(messages, bytes) else msgspec.json.encode(messages)
    asked = Request(model="any", stream=False, wants_usage=False, fields={"messages": msgspec.Raw(raw)}, body=b"")
    assert asked_of([row()], asked).status == 400
    assert asked_of([row()], msgspec.structs.replace(asked, fields={})).status == 400


def in_loop(test: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function to its end; an exception inside a callback fails the test as well."""

    async def run() -> None:
        faults: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        await test()
        assert faults == []

    asyncio.run(run())


def test_speed_waits_for_the_recorded_latency() -> None:
    """At speed 2 an answer that took 0.2 s comes after 0.1 s; at speed 0 at once."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for speed, least, most in ((0.0, 0.0, 0.05), (2.0, 0.095, 1.0)):
            started = loop.time()
            await ask(ReplayBackend([row(latency_s=0.2)], speed=speed), request(stream=True))
            assert least <= loop.time() - started < most

    in_loop(run)
    with pytest.raises(ConfigError, match="speed"):
        ReplayBackend([row()], speed=-1)


async def settle() -> None:
    """Let the event loop turn often enough for all that is ready."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_a_paused_call_delivers_nothing_until_it_is_resumed() -> None:
    """Pausing holds at the next piece, head included; resuming never calls back at once."""

    async def run() -> None:
        backend = ReplayBackend([row()])
        whole = (await ask(backend, request(stream=True))).events
        got = Collector()
        call = backend.send(target(), request(stream=True), got)
        call.pause()
        await settle()
        assert got.events == []
        call.resume()
        assert got.events == []
        got.on_chunk = call.pause
        await settle()
        assert got.events == ["head", "body"]

        def pause_and_resume() -> None:
            call.pause()
            call.resume()

        got.on_chunk = pause_and_resume
        call.resume()
        call.resume()
        await asyncio.wait_for(got.over.wait(), 5)
        assert got.events == whole
        call.resume()
        call.pause()
        await settle()
        assert got.events == whole

    in_loop(run)


@pytest.mark.parametrize("when", ["at once", "waiting", "at the first chunk", "at the last chunk", "after the end"])
def test_a_cancelled_call_delivers_nothing_more(when: str) -> None:
    """Cancelling is final and harmless whenever it comes, and twice."""

    async def run() -> None:
        backend = ReplayBackend([row(latency_s=0.03)], speed=1.0 if when == "waiting" else 0.0)
        got = Collector()
        call = backend.send(target(), request(stream=True), got)
        if when == "at the first chunk":
            got.on_chunk = call.cancel
        elif when == "at the last chunk":
            got.on_chunk = lambda: call.cancel() if b"[DONE]" in got.chunks[-1] else None
        elif when == "after the end":
            await got.over.wait()
        else:
            call.cancel()
        await asyncio.sleep(0.06)
        before = list(got.events)
        call.cancel()
        call.resume()
        await settle()
        assert got.events == before
        assert ("end" in before) == (when == "after the end")
        assert before == [] if when in {"at once", "waiting"} else before[:2] == ["head", "body"]

    in_loop(run)


def test_closing_cancels_the_calls_in_flight() -> None:
    """After close nothing is delivered any more."""

    async def run() -> None:
        backend = ReplayBackend([row(latency_s=0.02)], speed=1)
        calls: list[tuple[Call, Collector]] = []
        for _ in range(3):
            got = Collector()
            calls.append((backend.send(target(), request(), got), got))
        await backend.close()
        await asyncio.sleep(0.05)
        assert all(got.events == [] for _, got in calls)

    in_loop(run)


def test_a_long_stream_lets_other_calls_in_between() -> None:
    """One huge answer does not hold the event loop until its end."""

    async def run() -> None:
        backend = ReplayBackend([row("word " * 40_000), row("short", prompt="else")])
        long = Collector()
        backend.send(target(), request(stream=True), long)
        await ask(backend, request("else", stream=True))
        assert "end" not in long.events
        await asyncio.wait_for(long.over.wait(), 5)

    in_loop(run)


def test_a_file_names_its_providers_and_models(tmp_path: Path) -> None:
    """One provider a name before the first slash, whatever slashes follow."""
    said = RecordedAnswer(content="x", input_tokens=1, output_tokens=1)
    answers = {"hub/maker/model": said, "acme/large": said, "acme/small": said}
    recorded = TrafficRow(id="r", task="t", messages=({"role": "user", "content": "x"},), answers=answers)
    write_traffic(tmp_path / "in.jsonl.gz", [recorded])
    backend = ReplayBackend(tmp_path / "in.jsonl.gz")
    assert backend.models == ("acme/large", "acme/small", "hub/maker/model")
    providers = replay_providers(backend)
    assert list(providers) == ["acme", "hub"]
    assert providers["hub"] == Provider(name="hub", backend="replay", base_url="replay:")


def test_a_file_without_answers_is_refused(tmp_path: Path) -> None:
    """There is nothing to serve from rows that hold the truth alone."""
    path = tmp_path / "start.jsonl"
    write_traffic(path, [msgspec.structs.replace(row(), answers={})])
    with pytest.raises(ConfigError, match=r"start\.jsonl: holds no recorded answers"):
        ReplayBackend(path)
