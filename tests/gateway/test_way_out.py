"""The way from the running gateway to a provider: a proxy, a client certificate, an answer that comes compressed."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.foundation.test_upstream_proxy import tunnel_to
from tests.foundation.test_upstream_tls import Authority, authority, server_side
from tests.foundation.upstream_kit import Peer, Script, always, answer, serve
from tests.gateway.serving import Serving, chat

__all__ = ["authority"]

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificates")
SAID = "said on the far side"
COMPLETION = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": SAID}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 4, "total_tokens": 5},
}
REPLY = answer(json.dumps(COMPLETION).encode(), b"Content-Type: application/json")


def config(base_url: str, *lines: str) -> str:
    """A provider that is asked once, and not for long."""
    table = [f'[providers.far]\nbase_url = "{base_url}"\nauth = "none"', *lines]
    return "\n".join(["[server]\nretries = 0", *table, "[providers.far.timeouts]\nconnect = 5", ""])


async def ask(gateway: Serving, **members: Any) -> httpx2.Response:
    """Ask beside the event loop, on which the provider runs."""
    return await asyncio.to_thread(gateway.post, chat("far/m", **members))


def content(got: httpx2.Response) -> str:
    """What the answer says."""
    assert got.status_code == 200, got.text
    return str(got.json()["choices"][0]["message"]["content"])


@needs_openssl
def test_https_goes_through_the_proxy_of_the_environment(tmp_path: Path, authority: Authority) -> None:
    """A name that only the proxy can reach is asked through it, TLS to the provider inside, and the log is silent."""
    heads: list[bytes] = []

    async def main() -> None:
        pair = authority.issue("api", "DNS:api.example.com")
        async with serve(always(REPLY), server_side(pair)) as server, serve(tunnel_to(server.port, heads)) as proxy:
            far = config("https://api.example.com/v1", f'ca_bundle = "{authority.bundle}"')
            way = {"HTTPS_PROXY": f"http://user:hunter2@127.0.0.1:{proxy.port}"}
            with Serving(tmp_path, far, env=way) as gateway:
                assert content(await ask(gateway)) == SAID
            assert "hunter2" not in gateway.log
            assert [len(seen.peers) for seen in (server, proxy)] == [1, 1]

    asyncio.run(main())
    assert heads[0].startswith(b"CONNECT api.example.com:443 HTTP/1.1\r\n")
    assert b"proxy-authorization: Basic dXNlcjpodW50ZXIy\r\n" in heads[0]


@needs_openssl
def test_a_provider_that_asks_for_a_certificate_is_shown_it(tmp_path: Path, authority: Authority) -> None:
    """With client_cert the provider answers and knows who asks; without it the route fails and says where."""
    shown: list[str] = []

    async def script(peer: Peer) -> None:
        subject = peer.writer.get_extra_info("peercert")["subject"]
        shown.append(dict(part[0] for part in subject)["commonName"])
        await always(REPLY)(peer)

    async def main() -> None:
        local = server_side(authority.issue("local", "IP:127.0.0.1"), authority.bundle)
        cert, key = authority.issue("the-gateway")
        async with serve(script, local) as server:
            trusting = f'ca_bundle = "{authority.bundle}"'
            far = config(server.url, trusting, f'client_cert = "{cert}"', f'client_key = "{key}"')
            with Serving(tmp_path, far) as gateway:
                assert content(await ask(gateway)) == SAID
                gateway.config.write_text(config(server.url, trusting))
                await asyncio.to_thread(
                    httpx2.post, f"{gateway.url}/admin/reload", headers={"x-upstack-admin": "1"}, timeout=30
                )
                refused = await ask(gateway)
                assert refused.status_code == 502
                assert f"127.0.0.1:{server.port}" in refused.json()["error"]["message"]

    asyncio.run(main())
    assert shown == ["the-gateway"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_compressed_answer_is_unpacked_on_the_way(tmp_path: Path, stream: bool) -> None:
    """A provider that compresses unasked is understood; the caller, who did not ask for it, gets plain text."""
    chunk = {"choices": [{"index": 0, "delta": {"content": SAID}, "finish_reason": "stop"}]}
    events = b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"
    body = gzip.compress(events if stream else json.dumps(COMPLETION).encode())
    kind = b"text/event-stream" if stream else b"application/json"
    packed: Script = always(answer(body, b"Content-Type: " + kind, b"Content-Encoding: gzip"))

    async def main() -> httpx2.Response:
        async with serve(packed) as server:
            with Serving(tmp_path, config(server.url)) as gateway:
                return await ask(gateway, stream=stream)

    got = asyncio.run(main())
    assert "content-encoding" not in got.headers
    assert (SAID in got.text and got.text.endswith("[DONE]\n\n")) if stream else content(got) == SAID
