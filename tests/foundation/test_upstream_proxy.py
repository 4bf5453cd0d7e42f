"""Proxies: which requests take one, and how."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil

import pytest

from tests.foundation.test_upstream_tls import REPLY, Authority, authority, server_side
from tests.foundation.upstream_kit import Peer, Run, Script, always, answer, asking, hanging, run, serve
from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Timeouts, Tls
from upstack.foundation.upstream.origin import Proxy
from upstack.foundation.upstream.proxies import Proxies

__all__ = ["authority", "run"]

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificates")


def tunnel_to(port: int, heads: list[bytes]) -> Script:
    """A CONNECT proxy that leads every name to one port."""

    async def script(peer: Peer) -> None:
        heads.append(await peer.reader.readuntil(b"\r\n\r\n"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await peer.send(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        try:
            await asyncio.gather(pump(peer.reader, writer), pump(reader, peer.writer))
        finally:
            writer.close()

    return script


@needs_openssl
def test_https_goes_through_a_tunnel_with_tls_inside(run: Run, authority: Authority) -> None:
    heads: list[bytes] = []

    async def main() -> None:
        pair = authority.issue("api", "DNS:api.example.com")
        tls = Tls(ca_bundle=authority.bundle)
        async with (
            serve(always(REPLY), server_side(pair)) as server,
            serve(tunnel_to(server.port, heads)) as proxy,
            asking(environ={"HTTPS_PROXY": f"http://user:p%40ss@127.0.0.1:{proxy.port}"}) as asker,
        ):
            for _ in range(3):
                assert (await asker.ask("https://api.example.com/v1", tls=tls)).body == b"{}"
            wrong = await asker.ask("https://evil.example.com/v1", tls=tls)
            assert wrong.failure is Failure.REFUSED
            assert wrong.error
            assert "mismatch" in wrong.error.message
            assert len(server.peers) == 1
            secret = base64.b64encode(b"user:p@ss").decode()
            assert heads[0].decode().lower().split("\r\n")[:2] == [
                "connect api.example.com:443 http/1.1",
                "host: api.example.com:443",
            ]
            assert f"proxy-authorization: Basic {secret}\r\n" in heads[0].decode()

    run(main())


REFUSALS = {
    "a status": (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno", "status 407"),
    "closing": (b"", "closed the connection"),
    "nonsense": (b"220 mail ready\r\n\r\n", "else than HTTP"),
    "bytes after the head": (b"HTTP/1.1 200 OK\r\n\r\nextra", "bytes after its head"),
    "a flood": (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000, "else than HTTP"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusing_proxy_is_named_without_its_credentials(run: Run, name: str) -> None:
    reply, reason = REFUSALS[name]

    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(reply)

    async def main() -> None:
        async with (
            serve(script) as proxy,
            asking(environ={"ALL_PROXY": f"http://user:hunter2@127.0.0.1:{proxy.port}"}) as asker,
        ):
            got = await asker.ask("https://api.example.com")
            assert got.failure is Failure.REFUSED
            assert got.error
            assert f"api.example.com:443, by proxy 127.0.0.1:{proxy.port}: " in got.error.message
            assert reason in got.error.message
            assert "hunter2" not in got.error.message

    run(main())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named(run: Run, scheme: str) -> None:
    async def main() -> None:
        async with asking(environ={"ALL_PROXY": "127.0.0.1:9"}) as asker:
            got = await asker.ask(f"{scheme}://api.example.com")
            assert got.failure is Failure.REFUSED
            assert got.error
            assert "by proxy 127.0.0.1:9: connection refused" in got.error.message

    run(main())


@pytest.mark.parametrize("where", ["connecting", "answering"])
def test_a_proxy_that_hangs_ends_at_the_connect_timeout(run: Run, where: str) -> None:
    async def script(peer: Peer) -> None:
        await asyncio.sleep(10)

    async def main() -> None:
        async with serve(script) as proxy:
            with hanging() as port:
                via = port if where == "connecting" else proxy.port
                async with asking(environ={"https_proxy": f"http://127.0.0.1:{via}"}) as asker:
                    got = await asker.ask("https://api.example.com", timeouts=Timeouts(connect=0.2))
                    assert got.failure is Failure.CONNECT_TIMEOUT

    run(main())


def test_loopback_never_goes_to_the_proxy(run: Run) -> None:
    async def main() -> None:
        async with serve(always(answer(b"{}"))) as server, asking(environ={"HTTP_PROXY": "127.0.0.1:9"}) as asker:
            for host in ("127.0.0.1", "localhost"):
                assert (await asker.ask(f"http://{host}:{server.port}")).failure is None

    run(main())


PROXY = Proxy("proxy.corp", 3128)
EVERY = {"http_proxy": "http://proxy.corp:3128", "https_proxy": "http://proxy.corp:3128"}
BYPASS = [
    ("", "https", "api.openai.com", 443, PROXY),
    ("*", "https", "api.openai.com", 443, None),
    ("openai.com", "https", "api.openai.com", 443, None),
    (".openai.com", "https", "api.openai.com", 443, None),
    (" other.com , OpenAI.com ", "https", "api.openai.com", 443, None),
    ("openai.com", "https", "notopenai.com", 443, PROXY),
    ("openai.com", "https", "openai.com.evil.test", 443, PROXY),
    ("api.openai.com:8443", "https", "api.openai.com", 443, PROXY),
    ("api.openai.com:8443", "https", "api.openai.com", 8443, None),
    ("10.0.0.0/8", "http", "10.1.2.3", 8000, None),
    ("10.0.0.0/8", "http", "11.1.2.3", 8000, PROXY),
    ("10.1.2.3", "http", "10.1.2.3", 8000, None),
    ("fd00::/8", "http", "fd12::1", 8000, None),
    ("10.0.0.0/8,nonsense/99", "http", "internal", 8000, PROXY),
    ("", "http", "127.8.9.10", 80, None),
    ("", "http", "::1", 80, None),
    ("", "http", "vllm.localhost", 80, None),
    ("", "http", "localhost.evil.test", 80, PROXY),
]


@pytest.mark.parametrize(("no_proxy", "scheme", "host", "port", "expected"), BYPASS)
def test_no_proxy_says_who_is_reached_directly(
    no_proxy: str, scheme: str, host: str, port: int, expected: Proxy | None
) -> None:
    assert Proxies({**EVERY, "NO_PROXY": no_proxy}).find(scheme, host, port) == expected


VARIABLES: list[tuple[dict[str, str], str, Proxy | None]] = [
    ({}, "https", None),
    ({"HTTP_PROXY": "http://a:1"}, "https", None),
    ({"HTTP_PROXY": "http://a:1"}, "http", Proxy("a", 1)),
    ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, "https", Proxy("b", 2)),
    ({"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, "https", None),
    ({"ALL_PROXY": "a:1"}, "https", Proxy("a", 1)),
    ({"all_proxy": "a:1", "https_proxy": "b:2"}, "https", Proxy("b", 2)),
    ({"HTTPS_PROXY": "http://a"}, "https", Proxy("a", 80)),
    ({"HTTPS_PROXY": "http://u:p%3A@[::1]:9/"}, "https", Proxy("::1", 9, "Basic dTpwOg==")),
    ({"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, "http", None),
    ({"http_proxy": "http://a:1", "REQUEST_METHOD": "GET"}, "http", Proxy("a", 1)),
]


@pytest.mark.parametrize(("environ", "scheme", "expected"), VARIABLES)
def test_the_variables_are_read_as_other_programs_read_them(
    environ: dict[str, str], scheme: str, expected: Proxy | None
) -> None:
    assert Proxies(environ).find(scheme, "api.example.com", 443) == expected


@pytest.mark.parametrize("url", ["socks5://u:hunter2@proxy:1080", "http://u:hunter2@:3128", "http://h:hunter2"])
def test_a_proxy_that_cannot_be_used_is_refused_without_its_credentials(url: str) -> None:
    with pytest.raises(SupplyError) as raised:
        Proxies({"ALL_PROXY": url}).find("https", "api.example.com", 443)
    assert raised.value.failure is Failure.REFUSED
    assert "hunter2" not in raised.value.message


def test_a_proxy_does_not_show_its_credentials() -> None:
    assert "secret" not in repr(Proxy("proxy", 3128, "Basic secret"))
