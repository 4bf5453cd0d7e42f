"""The four timeouts, and what stops their clocks."""

from __future__ import annotations

import asyncio

import pytest

from tests.foundation.upstream_kit import Peer, Run, answer, asking, chunked, hanging, run, serve, until
from upstack.core.errors import Failure
from upstack.core.types import Timeouts

__all__ = ["run"]

START = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def silent(peer: Peer) -> None:
    await peer.request()
    await asyncio.sleep(20)


async def head_only(peer: Peer) -> None:
    await peer.request()
    await peer.send(START)
    await asyncio.sleep(20)


async def stalls(peer: Peer) -> None:
    await peer.request()
    await peer.send(START + b"2\r\nok\r\n")
    await asyncio.sleep(20)


async def drips(peer: Peer) -> None:
    await peer.request()
    await peer.send(START)
    for _ in range(400):
        await peer.send(b"2\r\nok\r\n")
        await asyncio.sleep(0.05)


async def deaf(peer: Peer) -> None:
    await asyncio.sleep(20)


CASES = {
    "nothing comes": (silent, Timeouts(first_byte=0.2), Failure.FIRST_BYTE_TIMEOUT),
    "a head is not a body": (head_only, Timeouts(first_byte=0.2), Failure.FIRST_BYTE_TIMEOUT),
    "the request is not even read": (deaf, Timeouts(first_byte=0.2), Failure.FIRST_BYTE_TIMEOUT),
    "the body stands still": (stalls, Timeouts(between_bytes=0.2), Failure.BETWEEN_BYTES_TIMEOUT),
    "the body never ends": (drips, Timeouts(between_bytes=0.2, total=0.3), Failure.TOTAL_TIMEOUT),
    "the total is shorter than all else": (silent, Timeouts(total=0.2), Failure.TOTAL_TIMEOUT),
}


@pytest.mark.parametrize("name", CASES)
def test_a_provider_that_is_too_slow_is_given_up_in_time(run: Run, name: str) -> None:
    script, timeouts, failure = CASES[name]

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            started = asyncio.get_running_loop().time()
            got = await asker.send(server.url, body=b"x" * 9_000_000, timeouts=timeouts).end()
            assert got.failure is failure
            assert 0.15 < asyncio.get_running_loop().time() - started < 1.0
            assert got.error
            assert f"127.0.0.1:{server.port}" in got.error.message

    run(main())


def test_a_connection_that_is_not_accepted_ends_at_the_connect_timeout(run: Run) -> None:
    async def main() -> None:
        with hanging() as port:
            async with asking() as asker:
                got = await asker.ask(f"http://127.0.0.1:{port}", timeouts=Timeouts(connect=0.2))
                assert got.failure is Failure.CONNECT_TIMEOUT

    run(main())


def test_a_paused_call_is_not_a_stalled_provider_but_its_total_runs(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(chunked(b"x" * 300_000, b"y" * 30_000_000))

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            timeouts = Timeouts(between_bytes=0.15, total=0.9)
            got = asker.send(server.url, timeouts=timeouts)
            got.pause_at = 1
            await asyncio.sleep(0.5)
            assert not got.is_over
            assert (await got.end()).failure is Failure.TOTAL_TIMEOUT

    run(main())


def test_after_a_pause_the_provider_has_its_whole_time_again(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(START + b"2\r\nok\r\n")
        await asyncio.sleep(0.7)
        await peer.send(b"2\r\nok\r\n0\r\n\r\n")

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            got = asker.send(server.url, timeouts=Timeouts(between_bytes=0.4))
            got.pause_at = 1
            await asyncio.sleep(0.5)
            assert got.call
            got.call.resume()
            assert (await got.end()).failure is None

    run(main())


def test_deadlines_go_by_the_clock_that_was_given(run: Run) -> None:
    now = 1000.0

    async def main() -> None:
        nonlocal now
        async with serve(silent) as server, asking(clock=lambda: now) as asker:
            got = asker.send(server.url, timeouts=Timeouts(first_byte=100.0))
            await until(lambda: bool(server.peers))
            now += 99
            await asyncio.sleep(0.15)
            assert not got.is_over
            now += 2
            assert (await got.end()).failure is Failure.FIRST_BYTE_TIMEOUT

    run(main())


def test_a_receiver_may_send_again_from_a_timeout(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number:
            await peer.send(answer(b"second"))
        await asyncio.sleep(20)

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            first = asker.send(server.url, timeouts=Timeouts(first_byte=0.1))
            await first.end()
            assert (await asker.ask(server.url)).body == b"second"

    run(main())


def test_the_timer_runs_only_while_something_is_in_flight(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer(b"{}", b"Connection: close"))

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            sweeper = asker.client._sweeper
            assert sweeper._timer is None
            await asker.ask(server.url)
            assert sweeper._timer
            await asyncio.sleep(0.15)
            assert sweeper._timer is None

    run(main())
