"""Back-pressure, cancelling, and bodies that unfold."""

from __future__ import annotations

import asyncio
import gc
import gzip
import tracemalloc
import weakref
import zlib

import pytest

from tests.foundation.upstream_kit import Peer, Recorder, Run, always, answer, asking, run, serve, until
from upstack.core.errors import Failure
from upstack.core.types import Timeouts, Tls
from upstack.foundation.upstream.decoding import PIECE, Decoder, decoder

__all__ = ["run"]

MB = 1_000_000


def test_a_receiver_that_does_not_read_stops_the_provider(run: Run) -> None:
    pushed = 0
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal pushed
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MB))
        block = b"x" * (MB // 4)
        try:
            for _ in range(800):
                await peer.send(block)
                pushed += len(block)
        finally:
            left.set()

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            got = asker.send(server.url)
            got.pause_at = 1
            await until(lambda: bool(got.pieces))
            await asyncio.sleep(0.3)
            assert len(got.body) < MB
            assert pushed < 32 * MB
            assert got.call
            got.call.resume()
            await got.moved()
            got.pause_at = 1
            await got.moved()
            got.call.cancel()
            async with asyncio.timeout(1):
                await left.wait()

    run(main())


def test_pausing_and_resuming_loses_nothing(run: Run) -> None:
    body = bytes(range(256)) * 20_000

    async def main() -> None:
        async with serve(always(answer(body))) as server, asking() as asker:
            for _ in range(2):
                got = asker.send(server.url)
                while not got.is_over:
                    got.pause_at = len(got.body) + 300_000
                    await got.moved()
                    assert got.call
                    got.call.resume()
                assert got.body == body
            assert len(server.peers) == 1

    run(main())


def test_a_call_paused_before_its_connection_is_open_reads_nothing(run: Run) -> None:
    async def main() -> None:
        async with serve(always(answer(b"{}"))) as server, asking() as asker:
            got = asker.send(server.url)
            assert got.call
            got.call.pause()
            await asyncio.sleep(0.1)
            assert not got.status
            got.call.resume()
            assert (await got.end()).body == b"{}"

    run(main())


@pytest.mark.parametrize("moment", ["connecting", "waiting", "reading"])
def test_a_cancelled_call_closes_the_connection_at_once_and_says_nothing_more(run: Run, moment: str) -> None:
    left = 0

    async def script(peer: Peer) -> None:
        nonlocal left
        if moment != "connecting":
            await peer.request()
        if moment == "reading":
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await peer.gone()
        left += 1

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            got = asker.send(server.url)
            if moment == "waiting":
                await until(lambda: bool(server.peers))
                await asyncio.sleep(0.02)
            if moment == "reading":
                await until(lambda: got.body == b"abc")
            assert got.call
            got.call.cancel()
            got.call.cancel()
            if moment != "connecting":
                await until(lambda: left == 1, 1.0)
            await asyncio.sleep(0.02)
            assert not got.is_over

    run(main())


@pytest.mark.parametrize("where", ["on_head", "on_body"])
def test_a_receiver_may_cancel_from_within(run: Run, where: str) -> None:
    class Quitter(Recorder):
        def on_head(self, status: int, headers: object) -> None:
            super().on_head(status, headers)  # type: ignore[arg-type]
            if where == "on_head":
                assert self.call
                self.call.cancel()

        def on_body(self, data: bytes) -> None:
            assert where == "on_body"
            super().on_body(data)
            assert self.call
            self.call.cancel()

    async def main() -> None:
        for coding in ((), (b"Content-Encoding: gzip",)):
            reply = answer(gzip.compress(b"x" * MB) if coding else b"x" * MB, *coding)
            async with serve(always(reply)) as server, asking() as asker:
                got = Quitter()
                pool = asker.client.pool(server.url, Tls())
                got.call = pool.send(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n", b"{}", Timeouts(), got)
                got.is_sending = False
                await got.moved()
                await asyncio.sleep(0.05)
                assert not got.is_over
                assert len(got.pieces) == (where == "on_body")
                assert not pool._connections

    run(main())


def test_cancelling_after_the_end_does_no_harm(run: Run) -> None:
    async def main() -> None:
        async with serve(always(answer(b"{}"))) as server, asking() as asker:
            for _ in range(3):
                got = await asker.ask(server.url)
                assert got.call
                got.call.cancel()
                got.call.pause()
                got.call.resume()
            assert len(server.peers) == 1

    run(main())


def test_a_gzip_bomb_comes_in_small_pieces_and_waits_between_them(run: Run) -> None:
    bomb = gzip.compress(bytes(60 * MB))

    async def main() -> None:
        async with serve(always(answer(bomb, b"Content-Encoding: gzip"))) as server, asking() as asker:
            got = asker.send(server.url)
            got.pause_at = 1
            await until(lambda: bool(got.pieces))
            tracemalloc.start()
            try:
                for count in range(1, 30):
                    assert len(got.pieces) == count
                    assert len(got.pieces[-1]) <= PIECE
                    got.pieces[-1] = b"-"
                    got.pause_at = 1
                    assert got.call
                    got.call.resume()
                    await got.moved()
                    await asyncio.sleep(0)
                assert tracemalloc.get_traced_memory()[1] < 1.5 * MB
            finally:
                tracemalloc.stop()

    run(main())


def test_a_gzip_bomb_does_not_hold_up_other_calls(run: Run) -> None:
    bomb = answer(gzip.compress(bytes(50 * MB)), b"Content-Encoding: gzip")

    async def main() -> None:
        async with serve(always(bomb)) as large, serve(always(answer(b"{}"))) as small, asking() as asker:
            await asker.ask(small.url)
            slow = asker.send(large.url)
            await slow.moved()
            for _ in range(10):
                assert (await asker.ask(small.url)).body == b"{}"
            assert not slow.is_over
            assert len((await slow.end()).body) == 50 * MB
            await asker.ask(large.url)
            assert len(large.peers) == 1

    run(main())


def test_a_paused_coded_body_is_given_whole_after_the_provider_has_closed(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(2 * MB)))

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            got = asker.send(server.url)
            got.pause_at = 1
            await until(lambda: bool(got.pieces))
            await asyncio.sleep(0.05)
            assert got.call
            got.call.resume()
            assert (await got.end()).failure is None
            assert len(got.body) == 2 * MB

    run(main())


def test_a_finished_call_is_freed_without_the_garbage_collector(run: Run) -> None:
    async def main() -> None:
        async with serve(always(answer(b"{}"))) as server, asking() as asker:
            await asker.ask(server.url)
            gc.collect()
            gc.disable()
            try:
                got = await asker.ask(server.url)
                watch = weakref.ref(got)
                del got
                await asyncio.sleep(0)
                assert watch() is None
            finally:
                gc.enable()

    run(main())


# --- the decoder alone ---


@pytest.mark.parametrize("step", [1, 7, 1000, 10**9])
@pytest.mark.parametrize("kind", ["gzip", "two members", "zlib", "raw deflate"])
def test_a_decoder_gives_back_what_was_coded(kind: str, step: int) -> None:
    plain = b"".join(b"%d," % number for number in range(2000))
    raw = zlib.compressobj(wbits=-15)
    coded = {
        "gzip": gzip.compress(plain),
        "two members": gzip.compress(plain[:500]) + gzip.compress(plain[500:]),
        "zlib": zlib.compress(plain),
        "raw deflate": raw.compress(plain) + raw.flush(),
    }[kind]
    coder = Decoder(b"deflate" if kind.endswith(("zlib", "deflate")) else b"gzip")
    got = b""
    assert coder.is_whole
    for at in range(0, len(coded), step):
        coder.feed(coded[at : at + step])
        while piece := coder.take():
            got += piece
    assert got == plain
    assert coder.is_whole


def test_bytes_after_a_coded_body_are_an_error() -> None:
    for coding, coded in ((b"gzip", gzip.compress(b"x")), (b"deflate", zlib.compress(b"x"))):
        coder = Decoder(coding)
        coder.feed(coded + b"junk")
        with pytest.raises(zlib.error):
            list(iter(coder.take, b""))


def test_only_known_codings_are_taken() -> None:
    assert decoder(None) is None
    assert decoder(b" Identity ") is None
    assert decoder(b"X-GZIP") is not None
    with pytest.raises(ValueError, match="unknown"):
        decoder(b"br")


def test_failure_of_the_coding_is_told_after_what_could_be_read(run: Run) -> None:
    plain = bytes(range(256)) * 4000
    coded = bytearray(gzip.compress(plain))
    coded[-6] ^= 255  # the checksum

    async def main() -> None:
        async with serve(always(answer(bytes(coded), b"Content-Encoding: gzip"))) as server, asking() as asker:
            got = await asker.ask(server.url)
            assert got.failure is Failure.MALFORMED
            assert plain.startswith(got.body)

    run(main())
