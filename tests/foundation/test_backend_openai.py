"""What the OpenAI backend sends: the head, the body, and nothing that is not the provider's business."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec
import pytest

from tests.foundation.upstream_kit import Peer, Recorder, Run, Server, always, answer, run, serve
from upstack.core.clock import SystemClock
from upstack.core.errors import Failure
from upstack.core.types import Provider, Request, Route, Target
from upstack.foundation.backends.base import Backend
from upstack.foundation.backends.openai import OpenAIBackend

__all__ = ["run"]

KEY = (("authorization", "Bearer sk-secret"),)
MESSAGES = {"model": "task/x", "messages": [{"role": "user", "content": "hi"}]}


def provider_of(url: str, **options: Any) -> Provider:
    return Provider(**{"name": "p", "backend": "openai", "base_url": url, "headers": (KEY,), **options})


def target_of(provider: Provider, *, model: str = "m-1", credential: int = 0) -> Target:
    return Target(Route("cheap", provider, model, "v1"), credential, f"cheap#{credential}")


def request_of(body: Mapping[str, Any] | bytes = MESSAGES, **options: Any) -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return Request(
        **{"model": "task/x", "stream": False, "wants_usage": False, "fields": fields, "body": raw, **options}
    )


class Exchange:
    """A backend, a server that keeps what it was sent, and the way from one to the other."""

    def __init__(self, backend: OpenAIBackend, server: Server) -> None:
        self.backend = backend
        self.server = server

    async def send(self, target: Target, request: Request) -> Recorder:
        recorder = Recorder()
        recorder.call = self.backend.send(target, request, recorder)
        recorder.is_sending = False
        return await recorder.end()

    async def sent(self, request: Request, *, target: Callable[[str], Target] | None = None) -> tuple[list[str], bytes]:
        """Send a request; give the lines of its head and its body, as the server saw them."""
        made = target(self.server.url) if target else target_of(provider_of(self.server.url))
        got = await self.send(made, request)
        assert got.failure is None
        head, body = self.server.requests[-1]
        return head.decode("latin-1").rstrip().split("\r\n"), body


@contextlib.asynccontextmanager
async def exchanging(environ: Mapping[str, str] | None = None) -> AsyncIterator[Exchange]:
    async def script(peer: Peer) -> None:
        while True:
            server.requests.append(await peer.request())
            await peer.send(answer(b'{"choices": []}'))

    backend = OpenAIBackend(clock=SystemClock(), environ=environ or {})
    async with serve(script) as server:
        try:
            yield Exchange(backend, server)
        finally:
            await backend.close()


def test_the_head_of_a_plain_request_is_exactly_this(run: Run) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            lines, body = await exchange.sent(request_of())
            assert lines == [
                "POST /v1/chat/completions HTTP/1.1",
                f"host: 127.0.0.1:{exchange.server.port}",
                "authorization: Bearer sk-secret",
                "accept: application/json",
                "content-type: application/json",
                "accept-encoding: identity",
                "user-agent: upstack/0.1.0",
                f"content-length: {len(body)}",
            ]
            assert json.loads(body) == {**MESSAGES, "model": "m-1"}

    run(main())


def test_a_stream_is_asked_for_as_one(run: Run) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            lines, _ = await exchange.sent(request_of(stream=True))
            assert "accept: text/event-stream" in lines

    run(main())


def test_what_we_do_not_know_passes_byte_for_byte(run: Run) -> None:
    odd = b'{"n" : 1.0e+2,"model":"a", "x":{ "\\u00e9" : [1 ,2], "big":123456789012345678901234567890}, "t":0.10}'

    async def main() -> None:
        async with exchanging() as exchange:
            _, body = await exchange.sent(request_of(odd))
            assert body == (
                b'{"n":1.0e+2,"model":"m-1","x":{ "\\u00e9" : [1 ,2], "big":123456789012345678901234567890},"t":0.10}'
            )

    run(main())


USAGE: list[tuple[dict[str, Any], dict[str, Any], Any]] = [
    ({}, {}, {"include_usage": True}),
    ({"stream_options": None}, {}, {"include_usage": True}),
    ({"stream_options": {"include_usage": False, "x": 1}}, {}, {"include_usage": True, "x": 1}),
    ({"stream_options": {"include_usage": True}}, {"wants_usage": True}, {"include_usage": True}),
    ({"stream_options": "nonsense"}, {}, "nonsense"),
    ({}, {"stream": False}, None),
]


@pytest.mark.parametrize(("fields", "options", "expected"), USAGE)
def test_streams_are_asked_for_their_usage(
    run: Run, fields: dict[str, Any], options: dict[str, Any], expected: Any
) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            _, body = await exchange.sent(request_of({**MESSAGES, **fields}, **{"stream": True, **options}))
            assert json.loads(body).get("stream_options") == expected

    run(main())


def test_a_provider_that_does_not_know_usage_in_streams_is_not_asked(run: Run) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            _, body = await exchange.sent(
                request_of(stream=True), target=lambda url: target_of(provider_of(url, usage_in_stream=False))
            )
            assert "stream_options" not in json.loads(body)

    run(main())


PATHS: list[tuple[str, dict[str, Any], str, str]] = [
    ("/v1", {}, "m", "/v1/chat/completions"),
    ("/v1/", {}, "m", "/v1/chat/completions"),
    ("", {}, "m", "/chat/completions"),
    ("/a b", {}, "m", "/a%20b/chat/completions"),
    ("/é", {}, "m", "/%C3%A9/chat/completions"),
    ("/openai", {"chat_path": "/deployments/{model}/chat"}, "gpt 4/o?", "/openai/deployments/gpt%204%2Fo%3F/chat"),
    (
        "/v1",
        {"query": (("api-version", "2024-10-21"), ("x", "a&b"))},
        "m",
        "/v1/chat/completions?api-version=2024-10-21&x=a%26b",
    ),
    ("/v1?k=v", {"query": (("x", "y"),)}, "m", "/v1/chat/completions?k=v&x=y"),
]


@pytest.mark.parametrize(("base", "options", "model", "path"), PATHS)
def test_the_path_is_made_of_base_url_chat_path_model_and_query(
    run: Run, base: str, options: dict[str, Any], model: str, path: str
) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            lines, _ = await exchange.sent(
                request_of(),
                target=lambda url: target_of(provider_of(url.removesuffix("/v1") + base, **options), model=model),
            )
            assert lines[0] == f"POST {path} HTTP/1.1"

    run(main())


def test_allowed_headers_of_the_caller_go_on_and_no_others(run: Run) -> None:
    asked = (
        (b"OpenAI-Beta", b"assistants=v2"),
        (b"x-title", b"caf\xe9\tbar"),
        (b"Authorization", b"Bearer caller"),
        (b"API-Key", b"caller"),
        (b"Host", b"evil"),
        (b"Content-Length", b"0"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Connection", b"close"),
        (b"Proxy-Authorization", b"x"),
        (b"TE", b"trailers"),
        (b"Upgrade", b"h2c"),
        (b"Expect", b"100-continue"),
        (b"Accept-Encoding", b"br"),
        (b"User-Agent", b"curl"),
        (b"Cookie", b"session=1"),
        (b"x-split", b"a\r\nx-evil: 1"),
        (b"x-feed", b"a\nx-evil: 1"),
        (b"x-zero", b"a\0b"),
        (b"x-evil: 1\r\nx", b"a"),
        (b"x evil", b"a"),
        (b"", b"a"),
    )

    async def main() -> None:
        async with exchanging() as exchange:
            keys = ((("api-key", "ours"),),)
            lines, body = await exchange.sent(
                request_of(headers=asked), target=lambda url: target_of(provider_of(url, headers=keys))
            )
            assert lines[1:] == [
                f"host: 127.0.0.1:{exchange.server.port}",
                "api-key: ours",
                "accept: application/json",
                "content-type: application/json",
                "accept-encoding: identity",
                "user-agent: upstack/0.1.0",
                "OpenAI-Beta: assistants=v2",
                "x-title: caf\xe9\tbar",
                f"content-length: {len(body)}",
            ]

    run(main())


def test_each_credential_sends_its_own_headers(run: Run) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            keys = ((("api-key", "one"),), (("api-key", "two"), ("x-org", "o")), ())
            provider = provider_of(exchange.server.url, headers=keys)
            seen = []
            for credential in (0, 1, 2, 0):
                await exchange.send(target_of(provider, credential=credential), request_of())
                lines = exchange.server.requests[-1][0].split(b"\r\n")
                seen.append([line for line in lines if line.startswith((b"api-key", b"x-org"))])
            assert seen == [[b"api-key: one"], [b"api-key: two", b"x-org: o"], [], [b"api-key: one"]]
            assert len(exchange.server.peers) == 1

    run(main())


def test_a_changed_provider_takes_effect_and_nothing_of_the_old_one_is_kept(run: Run) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            for key in ("old", "new"):
                provider = provider_of(exchange.server.url, headers=((("api-key", key),), (("api-key", key + "2"),)))
                for credential in (0, 1):
                    await exchange.send(target_of(provider, credential=credential), request_of())
                assert f"api-key: {key}2\r\n".encode() in exchange.server.requests[-1][0]
            kept = b"".join(head.plain + head.stream for head in exchange.backend._heads.values())
            assert b"old" not in kept
            assert b"new" in kept

    run(main())


def test_the_models_that_callers_name_do_not_pile_up(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upstack.foundation.backends.openai._MAX_HEADS", 5)

    async def main() -> None:
        async with exchanging() as exchange:
            provider = provider_of(exchange.server.url)
            for number in range(12):
                target = Target(Route(f"p/{number}", provider, f"m{number}", "v"), 0, f"p/{number}")
                await exchange.send(target, request_of())
                assert json.loads(exchange.server.requests[-1][1])["model"] == f"m{number}"
            assert len(exchange.backend._heads) <= 5

    run(main())


def test_plain_http_goes_to_the_proxy_with_the_whole_url_and_its_credentials(run: Run) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            environ = {"HTTP_PROXY": f"http://u:pw@127.0.0.1:{exchange.server.port}"}
            backend = OpenAIBackend(environ=environ)
            via = Exchange(backend, exchange.server)
            lines, _ = await via.sent(request_of(), target=lambda _: target_of(provider_of("http://gpu.test:8000/v1")))
            assert lines[0] == "POST http://gpu.test:8000/v1/chat/completions HTTP/1.1"
            assert lines[1] == "host: gpu.test:8000"
            assert "proxy-authorization: Basic dTpwdw==" in lines
            await backend.close()

    run(main())


UNUSABLE: list[tuple[dict[str, Any], int, Failure]] = [
    ({"base_url": "ftp://x/v1"}, 0, Failure.REFUSED),
    ({"base_url": "not a url"}, 0, Failure.REFUSED),
    ({"base_url": "http://host:99999"}, 0, Failure.REFUSED),
    ({"base_url": "http://[::1"}, 0, Failure.REFUSED),
    ({"headers": ((("authorization", "Bearer sk-secret\n"),),)}, 0, Failure.AUTH),
    ({"headers": ((("authorization", "Bearer sk-secret☃"),),)}, 0, Failure.AUTH),
    ({"headers": ((("x y", "sk-secret"),),)}, 0, Failure.AUTH),
    ({}, 7, Failure.AUTH),
]


@pytest.mark.parametrize(("options", "credential", "failure"), UNUSABLE)
def test_a_provider_that_cannot_be_called_fails_the_call_and_tells_no_secret(
    run: Run, options: dict[str, Any], credential: int, failure: Failure
) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            provider = msgspec.structs.replace(provider_of(exchange.server.url), **options)
            got = await exchange.send(target_of(provider, credential=credential), request_of())
            assert got.failure is failure
            assert got.error
            assert "secret" not in got.error.message

    run(main())


def test_a_failure_within_send_comes_after_it_and_can_be_cancelled(run: Run) -> None:
    async def main() -> None:
        async with exchanging() as exchange:
            recorder = Recorder()
            call = exchange.backend.send(target_of(provider_of("nonsense")), request_of(), recorder)
            recorder.is_sending = False
            call.cancel()
            await asyncio.sleep(0.02)
            assert not recorder.is_over

    run(main())


def test_it_is_a_backend(run: Run) -> None:
    async def main() -> None:
        backend: Backend = OpenAIBackend()
        async with serve(always(answer(b"{}"))) as server:
            recorder = Recorder()
            recorder.call = backend.send(target_of(provider_of(server.url)), request_of(), recorder)
            recorder.is_sending = False
            assert (await recorder.end()).body == b"{}"
        await backend.close()

    run(main())
