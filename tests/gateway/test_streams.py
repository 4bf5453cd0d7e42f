"""What a stream has to say, and by when, through a whole gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.gateway.serving import Serving, chat
from upstack.testing import ChatRequest, EchoProvider, End, RawClient, RawResponse, ScriptedProvider, Step
from upstack.testing.wire import DONE, EVENT_STREAM, LAST_CHUNK, STREAM_HEAD, chunk, event, head

HELLO = event(b'{"choices":[{"index":0,"delta":{"content":"hello"},"finish_reason":"stop"}]}')
LIMIT = "[providers.{}.timeouts]\nfirst_byte = 0.3\n"  # seconds to the first content
KEEP_ALIVE: list[Step] = [chunk(b": still here\n\n"), 0.05]
SCRIPTS: dict[str, list[Step]] = {
    # Keep-alives without end, each well within the limit between two bytes.
    "comments": [STREAM_HEAD, *KEEP_ALIVE * 1000],
    # The beginning of an answer, then nothing, for less than the limit between two bytes.
    "role": [STREAM_HEAD + chunk(event(b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}')), 30.0],
    # A good stream under a media type in capitals.
    "capitals": [head(200, [("content-type", EVENT_STREAM.upper()), ("connection", "close")]) + HELLO + DONE],
    # One finished choice and the end of the body, without `[DONE]`.
    "one": [STREAM_HEAD + chunk(HELLO) + LAST_CHUNK],
}


def script(name: str) -> Callable[[ChatRequest], list[Step]]:
    """The same answer each time."""
    return lambda _: SCRIPTS[name]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Providers of odd streams, and one that answers."""
    with ExitStack() as stack:
        providers = {name: stack.enter_context(ScriptedProvider(script(name))) for name in SCRIPTS}
        urls = {name: found.base_url for name, found in providers.items()}
        urls["good"] = stack.enter_context(EchoProvider()).base_url
        config = [f'[providers.{name}]\nbase_url = "{url}"\nauth = "none"\n' for name, url in urls.items()]
        config += [
            LIMIT.format(name) + f'[tasks.{name}]\ncandidates = ["{name}/m", "good/m"]\n'
            for name in ("comments", "role")
        ]
        config.append('[tasks.quiet]\ncandidates = ["good/m"]\ncapture = "none"\n')
        yield stack.enter_context(Serving(tmp_path_factory.mktemp("gateway"), "".join(config)))


def ask(gateway: Serving, model: str, **members: Any) -> RawResponse:
    """One stream."""

    async def run() -> RawResponse:
        async with RawClient(gateway.port, timeout_s=20) as client:
            return await client.ask(chat(model, stream=True, **members))

    return asyncio.run(run())


@pytest.mark.parametrize("name", ["comments", "role"])
def test_nothing_but_content_is_the_first_content(gateway: Serving, name: str) -> None:
    """A stream that only comments, or falls silent behind its role, fails at the limit of the first byte."""
    answer = ask(gateway, f"task/{name}")
    assert (answer.status, answer.text) == (200, "one two three")
    attempts = gateway.receipt(answer.header("x-upstack-receipt") or "")["attempts"]
    assert [attempt["failure"] for attempt in attempts] == ["first_byte_timeout", None]


def test_a_media_type_has_no_case(gateway: Serving) -> None:
    """`TEXT/EVENT-STREAM` is a stream."""
    assert ask(gateway, "capitals/m").events == [HELLO[6:-2], b"[DONE]"]


def test_a_body_that_ends_before_every_choice_was_cut(gateway: Serving) -> None:
    """Of two choices asked for, the one that came is no whole answer; of one, it is."""
    assert ask(gateway, "one/m").events[-1] == b"[DONE]"
    cut = ask(gateway, "one/m", n=2)
    assert json.loads(cut.events[-1])["error"]["code"] == "truncated_answer"
    assert cut.end is End.CLOSED


def test_a_stream_that_is_not_kept_is_answered_all_the_same(gateway: Serving) -> None:
    """With `capture = "none"` the receipt has tokens and no words."""
    answer = ask(gateway, "task/quiet")
    assert answer.text == "one two three"
    receipt = gateway.receipt(answer.header("x-upstack-receipt") or "")
    assert receipt["usage"]["output_tokens"] > 0
    assert receipt["answer"] is None
