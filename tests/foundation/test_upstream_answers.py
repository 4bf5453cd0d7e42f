"""How answers are read: framing, nonsense, and any way of cutting them into packets."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.foundation.upstream_kit import (
    BODY,
    HEAD,
    Peer,
    Recorder,
    Run,
    always,
    answer,
    asking,
    chunked,
    once,
    run,
    serve,
)
from upstack.core.errors import Failure
from upstack.core.types import Timeouts
from upstack.foundation.upstream.call import HttpCall
from upstack.foundation.upstream.connection import HEAD_LIMIT, Connection

__all__ = ["run"]

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b'{"choices": []}'
GZIP = gzip.compress(JSON, mtime=0)

WHOLE = {
    "content-length": (answer(JSON), 200, JSON),
    "an empty body": (answer(b""), 200, b""),
    "any status": (answer(JSON, status=b"429 Too Many Requests"), 429, JSON),
    "chunks": (chunked(b"ab", b"c" * 5000, b"d"), 200, b"ab" + b"c" * 5000 + b"d"),
    "chunk extensions and trailers": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nX-Late: 1\r\n\r\n",
        200,
        b"ok",
    ),
    "until the connection closes": (OK + b"\r\n" + JSON, 200, JSON),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
    "informational answers before it": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(JSON),
        200,
        JSON,
    ),
    "gzip": (answer(GZIP, b"Content-Encoding: gzip"), 200, JSON),
    "gzip in chunks": (
        chunked(*[bytes([b]) for b in GZIP], headers=(b"Content-Encoding: GZIP",)),
        200,
        JSON,
    ),
    "deflate": (answer(zlib.compress(JSON), b"Content-Encoding: deflate"), 200, JSON),
    "gzip until the connection closes": (OK + b"Content-Encoding: gzip\r\n\r\n" + GZIP, 200, JSON),
    "identity": (answer(JSON, b"Content-Encoding: identity"), 200, JSON),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + JSON, 200, JSON),
}

BROKEN = {
    "not HTTP": (b"<html>hello</html>", Failure.MALFORMED),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", Failure.MALFORMED),
    "two content lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc", Failure.MALFORMED),
    "length and chunks": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Failure.MALFORMED),
    "chunks and length": (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n", Failure.MALFORMED),
    "unknown transfer coding": (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Failure.MALFORMED),
    "unknown content coding": (answer(JSON, b"Content-Encoding: br"), Failure.MALFORMED),
    "coding upon coding": (answer(JSON, b"Content-Encoding: gzip, gzip"), Failure.MALFORMED),
    "not gzip": (answer(JSON, b"Content-Encoding: gzip"), Failure.MALFORMED),
    "gzip cut short": (answer(GZIP[:-3], b"Content-Encoding: gzip"), Failure.TRUNCATED),
    "bad chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n", Failure.MALFORMED),
    "giant chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nok", Failure.MALFORMED),
    "negative length": (OK + b"Content-Length: -1\r\n\r\n", Failure.MALFORMED),
    "folded header": (OK + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\nok", Failure.MALFORMED),
    "zero byte in a header": (OK + b"A: b\0c\r\nContent-Length: 2\r\n\r\nok", Failure.MALFORMED),
    "bare line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Failure.MALFORMED),
    "an upgrade nobody asked for": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", Failure.MALFORMED),
    "body shorter than its length": (OK + b"Content-Length: 99\r\n\r\nabc", Failure.TRUNCATED),
    "no body where one is due": (OK + b"Content-Length: 99\r\n\r\n", Failure.TRUNCATED),
    "chunks without their end": (chunked(b"abc", end=b""), Failure.TRUNCATED),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", Failure.RESET),
    "nothing at all": (b"", Failure.RESET),
}


@pytest.mark.parametrize("name", WHOLE)
def test_every_framing_gives_the_body_without_its_codings(run: Run, name: str) -> None:
    sent, status, body = WHOLE[name]

    async def main() -> None:
        async with serve(once(sent)) as server, asking() as asker:
            got = await asker.ask(server.url)
            assert (got.failure, got.status, got.body) == (None, status, body)

    run(main())


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_a_failure_that_names_host_and_port(run: Run, name: str) -> None:
    sent, failure = BROKEN[name]

    async def main() -> None:
        async with serve(once(sent)) as server, asking() as asker:
            got = await asker.ask(server.url)
            assert got.failure is failure
            assert got.error
            assert f"127.0.0.1:{server.port}" in got.error.message

    run(main())


def test_headers_come_in_lower_case_and_the_last_of_repeated_ones_wins(run: Run) -> None:
    async def main() -> None:
        reply = answer(JSON, b"X-Request-ID: 1", b"Content-TYPE: application/json", b"X-Request-ID: 2", b"Empty:")
        async with serve(once(reply)) as server, asking() as asker:
            got = await asker.ask(server.url)
            assert got.headers == {
                b"content-length": b"15",
                b"x-request-id": b"2",
                b"content-type": b"application/json",
                b"empty": b"",
            }

    run(main())


def test_an_answer_that_comes_byte_by_byte_is_whole(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        for byte in chunked(b"hello", b"world", headers=(b"A: b",)):
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            got = await asker.ask(server.url)
            assert (got.body, got.headers[b"a"]) == (b"helloworld", b"b")

    run(main())


@pytest.mark.parametrize("line", [b"A: " + b"x" * 1000, b"HTTP/1.1 103 Early Hints\r\n\r\n"], ids=["headers", "1xx"])
def test_a_flood_of_headers_ends_at_the_limit(run: Run, line: bytes) -> None:
    pulled = 0

    async def script(peer: Peer) -> None:
        nonlocal pulled
        await peer.request()
        first = b"" if line.startswith(b"HTTP") else OK
        await peer.send(first)
        for _ in range(20_000):
            await peer.send(line if line.startswith(b"HTTP") else line + b"\r\n")
            pulled += len(line)
            if not pulled % 50:
                await asyncio.sleep(0)

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            got = await asker.ask(server.url)
            assert got.failure is Failure.MALFORMED
            assert not got.status

    run(main())


@pytest.mark.parametrize("size", [HEAD_LIMIT - 200, HEAD_LIMIT + 1])
def test_the_limit_of_a_head_does_not_depend_on_its_packets(run: Run, size: int) -> None:
    async def main() -> None:
        async with serve(once(answer(b"x" * 100_000, b"A: " + b"y" * size))) as server, asking() as asker:
            got = await asker.ask(server.url)
            assert got.failure is (None if size < HEAD_LIMIT else Failure.MALFORMED)

    run(main())


@pytest.mark.parametrize("flood", [b"X: " + b"y" * 1000 + b"\r\n", b"y" * 1000], ids=["trailers", "one trailer"])
def test_a_flood_of_trailers_ends_at_the_limit(run: Run, flood: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(chunked(b"ok", end=b"0\r\nT: "))
        for _ in range(5000):
            await peer.send(flood)

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            got = await asker.ask(server.url)
            assert (got.failure, got.body) == (Failure.MALFORMED, b"ok")

    run(main())


SURPLUS = {
    "a second answer": answer(b"stolen"),
    "half a second answer": b"HTTP/1.1 20",
    "nonsense": b"}}}",
}


@pytest.mark.parametrize("surplus", SURPLUS)
@pytest.mark.parametrize("late", [False, True], ids=["with it", "later"])
def test_bytes_after_an_answer_never_become_the_next_one(run: Run, surplus: str, *, late: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if late:
            await peer.send(answer(JSON))
            await asyncio.sleep(0.05)
            await peer.send(SURPLUS[surplus])
        else:
            await peer.send(answer(JSON) + SURPLUS[surplus])
        await peer.gone()

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            assert (await asker.ask(server.url)).body == JSON
            await asyncio.sleep(0.1)
            assert (await asker.ask(server.url)).body == JSON
            assert len(server.peers) == 2

    run(main())


def test_a_header_cannot_split_an_answer(run: Run) -> None:
    async def main() -> None:
        smuggled = answer(b"a", b"X: y\rContent-Length: 5")
        async with serve(always(smuggled)) as server, asking() as asker:
            assert (await asker.ask(server.url)).failure is Failure.MALFORMED

    run(main())


# --- any way of cutting: without sockets, which would join the pieces again ---


LOOP = asyncio.new_event_loop()


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = True
        self.is_reading_ = True

    def write(self, data: Any) -> None:
        assert self.is_open

    def is_closing(self) -> bool:
        return not self.is_open

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.is_reading_ = False

    def resume_reading(self) -> None:
        self.is_reading_ = True

    def close(self) -> None:
        self.is_open = False

    abort = close


class Shelf:
    """An owner that takes everything back."""

    def release(self, connection: Connection) -> None: ...

    def forget(self, connection: Connection) -> None: ...


def receive(pieces: list[bytes]) -> tuple[int, dict[bytes, bytes], bytes, Failure | None]:
    """Feed an answer to a connection in these pieces, then close it; what came of it."""
    return LOOP.run_until_complete(_receive(pieces))


async def _receive(pieces: list[bytes]) -> tuple[int, dict[bytes, bytes], bytes, Failure | None]:
    recorder, wire = Recorder(), Wire()
    recorder.is_sending = False
    connection = Connection(Shelf(), asyncio.get_running_loop())
    connection.connection_made(wire)
    connection.start(HttpCall(set(), "test:1", Timeouts(), recorder, 0.0), HEAD, BODY, 0.0)
    for piece in pieces:
        if wire.is_open:
            connection.data_received(piece)
    connection.connection_lost(None)
    assert recorder.is_over
    return recorder.status, recorder.headers, recorder.body, recorder.failure


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut at these places (any numbers)."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


ANSWERS = [sent for sent, _, _ in WHOLE.values()] + [sent for sent, _ in BROKEN.values()]
PLACES = st.lists(st.integers(0, 100_000), max_size=30)


@settings(max_examples=300, deadline=None)
@given(sent=st.sampled_from(ANSWERS), places=PLACES)
def test_how_an_answer_is_cut_makes_no_difference(sent: bytes, places: list[int]) -> None:
    assert receive(cut(sent, places)) == receive([sent] if sent else [])


@settings(max_examples=300, deadline=None)
@given(
    sent=st.sampled_from(ANSWERS),
    places=PLACES,
    at=st.integers(0, 5000),
    noise=st.binary(max_size=4),
    drop=st.integers(0, 4),
)
def test_a_damaged_answer_ends_once_and_the_same_way_however_it_is_cut(
    sent: bytes, places: list[int], at: int, noise: bytes, drop: int
) -> None:
    at %= len(sent) + 1
    damaged = sent[:at] + noise + sent[at + drop :]
    whole, split = receive([damaged] if damaged else []), receive(cut(damaged, places))
    assert (split[0], split[1], split[3]) == (whole[0], whole[1], whole[3])
    # A decoder that finds damage gives nothing of the packet it is in.
    assert split[2] == whole[2] or (whole[3] and split[2].startswith(whole[2]))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=6))
def test_noise_never_passes_for_an_answer(pieces: list[bytes]) -> None:
    assert receive(pieces)[3] in {Failure.MALFORMED, Failure.RESET}
