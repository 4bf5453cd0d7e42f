"""What hostile or broken callers meet: the right 4xx in the OpenAI error shape, and a connection that stays sane."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gateway.serving import Serving, chat, provider
from upstack.testing import Answer, EchoProvider, End, RawClient, RawResponse, ScriptedProvider

CONFIG = "[server]\nmax_body_bytes = 200000\nrequest_timeout = 1.0\nkeep_alive = 2.0\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A gateway with small limits in front of an echo."""
    with EchoProvider() as echo:
        config = CONFIG + provider("echo", echo.base_url)
        with Serving(tmp_path_factory.mktemp("gateway"), config) as serving:
            yield serving


def exchange(gateway: Serving, *sent: bytes, answers: int = 1) -> list[RawResponse]:
    """Send bytes on one connection, read as many answers."""

    async def run() -> list[RawResponse]:
        async with RawClient(gateway.port) as client:
            for data in sent:
                await client.send(data)
            return [await client.read() for _ in range(answers)]

    return asyncio.run(run())


def post(body: bytes, headers: str = "content-type: application/json\r\n", path: str = "/v1/chat/completions") -> bytes:
    """The bytes of a POST."""
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def with_host(headers: str) -> str:
    """Header lines with a Host, theirs or one that is served."""
    return headers if "\r\nhost:" in headers else f"host: localhost\r\n{headers}"


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
GOOD = post(json.dumps(chat("echo/m", "still here")).encode())


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (post(b"{"), 400, "invalid_json"),
        (post(b'{"model":"echo/m","messages":[{"content":"\xff"}]}'), 400, "invalid_utf8"),
        (post(b'{"model":7,"messages":[{}]}'), 400, "invalid_type"),
        (post(b'{"model":"echo/m","messages":[1]}'), 400, "invalid_type"),
        (post(b'{"model":"echo/m","messages":[  ]}'), 400, "invalid_request"),
        (post(b'{"model":"nobody","messages":[{}]}'), 404, "model_not_found"),
        (post(b"{}", "content-type: text/plain\r\n"), 415, "unsupported_content_type"),
        (post(b"{}", ""), 415, "unsupported_content_type"),
        (post(b"{}", "content-type: application/json\r\ncontent-encoding: gzip\r\n"), 415, "unsupported_encoding"),
        (post(b""), 400, "invalid_json"),
        (b"GET /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\r\n", 405, "invalid_request"),
    ],
)
def test_wrong_requests_get_their_4xx_and_the_connection_lives(
    gateway: Serving, request_bytes: bytes, status: int, code: str
) -> None:
    """The error is in the OpenAI shape, and the next request on the connection is answered."""
    wrong, right = exchange(gateway, request_bytes, GOOD, answers=2)
    assert (wrong.status, wrong.json()["error"]["code"]) == (status, code)
    assert right.status == 200
    assert right.json()["choices"][0]["message"]["content"] == "still here"


JSON = "content-type: application/json\r\n"
ASGI = "/v1/chat%2Fcompletions"  # the same endpoint, past the hot path


@pytest.mark.parametrize("path", ["/v1/chat/completions", ASGI])
@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ("content-type: application/jsonx\r\n", 415, "unsupported_content_type"),
        (JSON + "content-encoding: gzip\r\n", 415, "unsupported_encoding"),
        (JSON + "transfer-encoding: gzip, chunked\r\n", 501, "unsupported_encoding"),
        (JSON + "content-length: 200001\r\n", 413, "body_too_large"),
        (JSON + "host: rebound.example\r\n", 403, "host_not_allowed"),
        (JSON + "host: localhost.example:4000\r\n", 403, "host_not_allowed"),
        (JSON + "host: user@localhost\r\n", 403, "host_not_allowed"),
        (JSON + "host:\r\n", 403, "host_not_allowed"),
        (JSON + "origin: https://page.example\r\n", 403, "origin_not_allowed"),
        (JSON + "origin: null\r\n", 403, "origin_not_allowed"),
        (JSON + "origin: http://[\r\n", 403, "origin_not_allowed"),
    ],
)
def test_heads_are_refused_alike_on_both_paths(
    gateway: Serving, path: str, headers: str, status: int, code: str
) -> None:
    """What the head alone tells is answered the same with and without the hot path."""
    body = GOOD.partition(b"\r\n\r\n")[2]
    framed = "transfer-encoding" in headers or "content-length" in headers
    length = "" if framed else f"content-length: {len(body)}\r\n"
    sent = f"POST {path} HTTP/1.1\r\n{with_host(headers)}{length}\r\n".encode()
    [answer] = exchange(gateway, sent + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if framed else body))
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("path", ["/v1/chat/completions", ASGI])
@pytest.mark.parametrize(
    "headers",
    [
        "content-type: Application/JSON ; charset=utf-8\r\n",
        JSON + "content-encoding: IDENTITY\r\n",
        JSON + "host: LOCALHOST:4000\r\n",
        JSON + "host: app.localhost\r\n",
        JSON + "host: 127.0.0.1\r\n",
        JSON + "host: [::1]:4000\r\n",
        JSON + "origin: http://localhost:3000\r\n",
    ],
)
def test_heads_are_taken_alike_on_both_paths(gateway: Serving, path: str, headers: str) -> None:
    """Names, types and encodings are compared without regard to case, and this machine's own callers are served."""
    body = GOOD.partition(b"\r\n\r\n")[2]
    sent = f"POST {path} HTTP/1.1\r\n{with_host(headers)}content-length: {len(body)}\r\n\r\n".encode() + body
    [answer] = exchange(gateway, sent)
    assert answer.status == 200


@pytest.mark.parametrize("path", ["/v1/models", "/v1/receipts/x", "/metrics", "/healthz"])
def test_a_page_that_names_itself_this_machine_reads_nothing(gateway: Serving, path: str) -> None:
    """A name made to resolve to loopback opens no endpoint to the page behind it."""
    [answer] = exchange(gateway, f"GET {path} HTTP/1.1\r\nhost: rebound.example:{gateway.port}\r\n\r\n".encode())
    assert (answer.status, answer.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"NONSENSE\r\n\r\n",
        HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: 4\r\ncontent-length: 5\r\n\r\n{}  ",
        HEAD + b"content-length: -1\r\n\r\n",
        HEAD + b"transfer-encoding: gzip, identity\r\n\r\n{}",
        HEAD + b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost : x\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused_and_closed(gateway: Serving, request_bytes: bytes) -> None:
    """Framing that two parsers could read differently is a 400, never a request, and ends the connection."""
    answer, after = exchange(gateway, request_bytes, answers=2)
    assert answer.status == 400
    assert answer.json()["error"]["code"] == "invalid_http"
    assert after.end is not End.WHOLE


def test_oversized_body_is_413_however_it_is_announced(gateway: Serving) -> None:
    """By content-length at once, by chunks when the limit is passed; the answer is readable, the connection ends."""
    head = HEAD + b"content-type: application/json\r\n"
    [first] = exchange(gateway, head + f"content-length: {10**12}\r\n\r\n".encode())
    assert (first.status, first.json()["error"]["code"]) == (413, "body_too_large")
    head += b"transfer-encoding: chunked\r\n\r\n"
    [second] = exchange(gateway, head, *[b"10000\r\n" + b"x" * 65536 + b"\r\n"] * 4)
    assert (second.status, second.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("more", ["", "connection: close\r\n"])
def test_oversized_body_that_comes_with_its_head_is_413(gateway: Serving, more: str) -> None:
    """Head and body in one piece are refused like any other: readable, the end announced, nothing in the log."""
    before = gateway.log
    answer, after = exchange(gateway, post(b"x" * 200_001, JSON + more) + GOOD, answers=2)
    assert (answer.status, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert answer.header("connection") == "close"
    assert after.end is End.CLOSED
    assert gateway.log == before


@pytest.mark.parametrize("line", ["POST /v1/chat/completions HTTP/2.0", "GET /healthz HTTP/2.0", "GET / HTTP/0.9"])
def test_other_versions_are_505(gateway: Serving, line: str) -> None:
    """Of what is not spoken here, no request is taken."""
    answer, after = exchange(gateway, f"{line}\r\nhost: localhost\r\n{JSON}\r\n".encode() + GOOD, answers=2)
    assert (answer.status, answer.json()["error"]["code"]) == (505, "invalid_http")
    assert after.end is not End.WHOLE


def test_endless_headers_are_431(gateway: Serving) -> None:
    """Headers above the limit are refused while they still come."""
    [answer] = exchange(
        gateway, b"POST /v1/chat/completions HTTP/1.1\r\n", *[b"x-filler: " + b"y" * 8000 + b"\r\n"] * 20
    )
    assert (answer.status, answer.json()["error"]["code"]) == (431, "headers_too_large")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
@pytest.mark.parametrize("cut", [20, -3])
def test_slow_loris_is_cut_off(gateway: Serving, path: str, cut: int) -> None:
    """A caller that stops in the middle of its head or body loses the connection after `request_timeout`."""

    async def run() -> float:
        async with RawClient(gateway.port) as client:
            await client.send(post(b'{"model":"x"}', path=path)[:cut])
            begun = time.monotonic()
            while await client.read_some():
                pass
            return time.monotonic() - begun

    assert asyncio.run(run()) < 4.5


def test_idle_connections_are_closed_without_a_word(gateway: Serving) -> None:
    """After `keep_alive` seconds of silence the connection ends."""

    async def run() -> bool:
        async with RawClient(gateway.port) as client:
            await client.ask(chat("echo/m"))
            return await client.closed(4.5)

    assert asyncio.run(run())


def test_pipelined_requests_are_answered_in_order(gateway: Serving) -> None:
    """Hot and ordinary requests on one connection, all sent at once, are answered one after the other."""
    listing = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"
    texts = [f"text {number}" for number in range(40)]
    sent = b"".join(post(json.dumps(chat("echo/m", text)).encode()) + listing for text in texts)
    answers = exchange(gateway, sent, answers=80)
    assert [answer.status for answer in answers] == [200] * 80
    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers[::2]] == texts
    assert all(answer.json() == {"status": "alive"} for answer in answers[1::2])


def test_http_1_0_and_connection_close_end_the_connection(gateway: Serving) -> None:
    """Callers that do not keep connections alive get an answer and a close, streams too."""
    body = json.dumps(chat("echo/m", "hi", stream=True)).encode()
    old = post(body).replace(b"HTTP/1.1", b"HTTP/1.0")
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as raw:
        raw.sendall(old)
        seen = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, events = seen.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert events.endswith(b"data: [DONE]\n\n")
    answer, after = exchange(
        gateway, GOOD.replace(b"host: localhost", b"host: localhost\r\nconnection: close"), answers=2
    )
    assert answer.status == 200
    assert after.end is End.CLOSED


def test_expect_100_continue_is_honoured(gateway: Serving) -> None:
    """A caller that waits for the word to send its body gets it."""
    body = json.dumps(chat("echo/m")).encode()
    head = post(body, "content-type: application/json\r\nexpect: 100-continue\r\n").removesuffix(body)
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as raw:
        raw.sendall(head)
        assert raw.recv(100).startswith(b"HTTP/1.1 100 ")
        raw.sendall(body)
        assert raw.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/healthz"])
def test_an_offer_to_upgrade_is_passed_over(gateway: Serving, path: str) -> None:
    """Clients that offer HTTP/2 in the clear, as Java's does, are answered in HTTP/1.1, bodies and all."""
    offer = "content-type: application/json\r\nconnection: Upgrade, HTTP2-Settings\r\n"
    offer += "upgrade: h2c\r\nhttp2-settings: AA\r\n"
    sent = post(json.dumps(chat("echo/m", "upgraded")).encode(), offer, path)
    if path == "/healthz":
        sent = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{offer}\r\n".encode()
    first, second = exchange(gateway, sent + GOOD, answers=2)
    assert (first.status, second.status) == (200, 200)
    assert path == "/healthz" or first.json()["choices"][0]["message"]["content"] == "upgraded"


def test_many_offers_to_upgrade_are_passed_over(gateway: Serving) -> None:
    """However many requests with such an offer come at once, all are answered."""
    before = gateway.log
    offer = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n"
    answers = exchange(gateway, offer * 1200, answers=1200)
    assert {answer.status for answer in answers} == {200}
    assert gateway.log == before


def test_connect_is_not_served(gateway: Serving) -> None:
    """This is no proxy for other hosts."""
    [answer] = exchange(gateway, b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n")
    assert answer.status == 405


def test_large_headers_in_pieces_are_taken(gateway: Serving) -> None:
    """45 KB of headers are within the limit however they are cut."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\n"
    filler = [b"x-filler: " + b"y" * 4000 + b"\r\n"] * 11
    [answer] = exchange(gateway, head, *filler, GOOD.partition(b"\r\n")[2])
    assert answer.status == 200


def test_a_head_behind_a_long_body_is_not_taken_for_large(gateway: Serving) -> None:
    """What ends one request and begins the next in one piece counts for the head only from where that begins."""
    body = json.dumps(chat("echo/m", "y" * 150_000)).encode()
    whole = post(body) + GOOD

    async def run() -> list[int]:
        async with RawClient(gateway.port) as client:
            statuses = []
            for _ in range(6):  # the kernel's window opens with time
                for piece in (whole[:30], whole[30:-120], whole[-120:]):
                    await client.send(piece)
                    await asyncio.sleep(0.01)
                statuses += [(await client.read()).status for _ in range(2)]
            return statuses

    assert asyncio.run(run()) == [200] * 12


def test_content_never_reaches_the_log(gateway: Serving) -> None:
    """Whatever is wrong with a request, nothing of it is logged."""
    canary = "CANARY-1234"
    exchange(gateway, post(f'{{"model":"{canary}","messages":[{{"content":"{canary}"'.encode()))
    exchange(gateway, post(json.dumps(chat(f"nobody/{canary}", canary)).encode()))
    exchange(gateway, f"GET /{canary} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    exchange(gateway, f"POST {canary}\x00 HTTP/1.1\r\n\r\n".encode())
    assert canary not in gateway.log


pieces = st.sampled_from(
    [
        b"POST /v1/chat/completions HTTP/1.1\r\n",
        b"GET /healthz HTTP/1.1\r\n",
        b"content-type: application/json\r\n",
        b"content-length: 5\r\n",
        b"content-length: 0\r\n",
        b"transfer-encoding: chunked\r\n",
        b"connection: close\r\n",
        b"upgrade: websocket\r\nconnection: upgrade\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n",
        b"expect: 100-continue\r\n",
        b"\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\nx-trailer: y\r\n\r\n",
        b'{"model":"echo/m","messages":[{"role":"user","content":"x"}]}',
        b"\x00",
        b"\n",
        GOOD,
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces | st.binary(max_size=20), max_size=12))
def test_no_bytes_break_the_gateway(gateway: Serving, parts: list[bytes]) -> None:
    """Any sequence of HTTP fragments leaves the gateway answering others, without a traceback in its log."""
    with socket.create_connection(("127.0.0.1", gateway.port), 5) as raw:
        raw.sendall(b"".join(parts))
        raw.shutdown(socket.SHUT_WR)
        raw.settimeout(4)
        try:
            while raw.recv(65536):
                pass
        except ConnectionError:
            pass
    [answer] = exchange(gateway, GOOD)
    assert answer.status == 200
    assert "Traceback" not in gateway.log


REFUSED_HEADS = [
    ("content-type: text/plain\r\ncontent-length: 5\r\n", 415),
    ("content-type: application/json\r\norigin: https://page.example\r\ncontent-length: 5\r\n", 403),
    ("content-type: application/json\r\ncontent-length: 200001\r\n", 413),
]


@pytest.mark.parametrize("first", [b"", GOOD], ids=["alone", "in a pipeline"])
@pytest.mark.parametrize(("lines", "status"), REFUSED_HEADS, ids=[str(status) for _, status in REFUSED_HEADS])
def test_a_caller_that_waits_for_leave_gets_its_refusal(
    gateway: Serving, lines: str, status: int, first: bytes
) -> None:
    """At once and without a 100, as it would send no body before."""
    sent = first + HEAD + f"{lines}expect: 100-continue\r\n\r\n".encode()
    answers = exchange(gateway, sent, answers=1 + bool(first))
    assert [answer.status for answer in answers] == [200] * bool(first) + [status]


def test_http_1_0_is_not_told_to_go_on(gateway: Serving) -> None:
    """It knows no 100."""
    body = json.dumps(chat("echo/m")).encode()
    old = post(body, JSON + "expect: 100-continue\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    [answer] = exchange(gateway, old.removesuffix(body), body)
    assert answer.status == 200


@pytest.mark.parametrize("behind", [b"\x00garbage", b"GET / HTTP/2.0\r\nhost: localhost\r\n\r\n"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat%2Fcompletions"])
def test_what_is_asked_is_answered_whatever_comes_behind_it(gateway: Serving, path: str, behind: bytes) -> None:
    """It was paid for; the connection ends after it, as nothing more can be read from it."""
    good = post(json.dumps(chat("echo/m", "still here")).encode(), path=path)
    *answers, after = exchange(gateway, good + good + behind, answers=3)
    assert [(answer.status, answer.header("connection")) for answer in answers] == [(200, None), (200, "close")]
    assert after.end is End.CLOSED


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/healthz"])
def test_one_host_is_named(gateway: Serving, path: str) -> None:
    """HTTP/1.1 asks for one, so that nobody can read another than we."""
    for lines in ("", "host: localhost\r\nhost: localhost\r\n", "host: rebound.example\r\nhost: localhost\r\n"):
        [answer] = exchange(gateway, f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_http")


@pytest.mark.parametrize("cut", [1, 20_000, 60_000, 70_200])
def test_a_large_head_is_refused_however_it_is_cut(gateway: Serving, cut: int) -> None:
    """Whether one read brings it whole or not."""
    sent = HEAD + b"x-filler: " + b"y" * 70_000 + b"\r\n" + GOOD.partition(b"localhost\r\n")[2]

    async def run() -> int:
        async with RawClient(gateway.port) as client:
            await client.send(sent[:cut])
            await asyncio.sleep(0.05)
            await client.send(sent[cut:])
            return (await client.read()).status

    assert asyncio.run(run()) == 431


@pytest.mark.parametrize(
    ("path", "sizes"),
    [
        ("/v1/chat/completions", [8_000_000]),
        ("/v1/chat/completions", [8_000_000, 8_000_000]),
        ("/v1/chat%2Fcompletions", [8_000_000]),
        ("/v1/chat%2Fcompletions", [8_000_000, 1000]),
    ],
)
def test_what_a_caller_who_left_has_sent_is_freed(tmp_path: Path, path: str, sizes: list[int]) -> None:
    """At once, and the connection's work with it: neither is left to a collection of garbage."""
    with ScriptedProvider(lambda _: Answer("x", first_byte_delay_s=30.0)) as slow:
        config = provider("slow", slow.base_url).replace("first_byte = 1", "first_byte = 60")
        sent = b"".join(post(json.dumps(chat("slow/m", "y" * size)).encode(), path=path) for size in sizes)

        async def run() -> None:
            async with RawClient(serving.port) as client:
                asked = slow.count
                await client.send(sent)
                while slow.count == asked:
                    await asyncio.sleep(0.01)

        with Serving(tmp_path, f'[server]\ncapture = "none"\n{config}') as serving:
            grown = []
            for _ in range(6):
                asyncio.run(run())
                while "upstack_in_flight 0.0" not in serving.get("/metrics").text:
                    time.sleep(0.02)
                grown.append(resident(serving))
            deadline = time.monotonic() + 2  # what is in flight no more may be let go of a moment later
            while resident(serving) - grown[0] >= 20_000_000:
                assert time.monotonic() < deadline, grown
                time.sleep(0.05)
            assert serving.stop() == 0
            assert "running task" not in serving.log


def resident(serving: Serving) -> int:
    """Bytes of memory the gateway has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{serving.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024
