"""How connections are kept, shared and given up."""

from __future__ import annotations

import asyncio
import socket

import pytest

from tests.foundation.upstream_kit import (
    Peer,
    Recorder,
    Run,
    always,
    answer,
    asking,
    chunked,
    hanging,
    once,
    run,
    serve,
    until,
)
from upstack.core.errors import Failure
from upstack.core.types import Timeouts, Tls
from upstack.foundation.upstream.pool import Limits

__all__ = ["run"]

REPLY = answer(b"{}")


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_one_connection_serves_one_request_after_another(run: Run) -> None:
    async def main() -> None:
        async with serve(always(REPLY, chunked(b"a", b"b"), REPLY)) as server, asking() as asker:
            bodies = [(await asker.ask(server.url)).body for _ in range(5)]
            assert bodies == [b"{}", b"ab", b"{}", b"{}", b"{}"]
            assert len(server.peers) == 1

    run(main())


def test_a_receiver_may_send_again_as_soon_as_an_answer_has_ended(run: Run) -> None:
    async def main() -> None:
        async with serve(always(REPLY)) as server, asking() as asker:
            first = await asker.ask(server.url)
            second = asker.send(server.url)
            on_end = second.on_end
            third: list[Recorder] = []

            def again() -> None:
                on_end()
                third.append(asker.send(server.url))

            second.on_end = again  # type: ignore[method-assign]
            await second.end()
            await third[0].end()
            assert [first.body, second.body, third[0].body] == [b"{}"] * 3
            assert len(server.peers) == 1

    run(main())


def test_the_newest_idle_connection_is_lent_first(run: Run) -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await asyncio.sleep(0.05 if peer.number == 0 else 0.02)
            await peer.send(answer(b"%d" % peer.number))

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            both = [asker.send(server.url), asker.send(server.url)]
            for one in both:
                await one.end()
            assert sorted(one.body for one in both) == [b"0", b"1"]
            assert [(await asker.ask(server.url)).body for _ in range(3)] == [b"0"] * 3

    run(main())


@pytest.mark.parametrize(
    "reply",
    [
        answer(b"{}", b"Connection: close"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
    ],
    ids=["Connection: close", "HTTP/1.0", "until close"],
)
def test_a_connection_that_will_close_is_not_lent_again(run: Run, reply: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply)
        if b"Content-Length" in reply:
            await peer.gone()  # it is the client that closes

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            assert [(await asker.ask(server.url)).body for _ in range(3)] == [b"{}"] * 3
            assert len(server.peers) == 3

    run(main())


def test_a_connection_is_not_lent_again_while_the_request_is_unsent(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(answer(b"too large", status=b"413 Content Too Large"))
        await asyncio.sleep(10)

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            early = await asker.send(server.url, body=b"x" * 30_000_000).end()
            assert early.status == 413
            await asker.ask(server.url)
            assert len(server.peers) == 2

    run(main())


def test_a_large_request_arrives_whole(run: Run) -> None:
    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await peer.send(answer(b"%d" % len(body)))

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            for size in (60_000, 70_000, 20_000_000):
                assert (await asker.send(server.url, body=b"x" * size).end()).body == b"%d" % size

    run(main())


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_kept_connection_that_closes_unseen_is_stale(run: Run, how: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(REPLY)
        await peer.request()
        if how == "reset":
            peer.reset()

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            assert (await asker.ask(server.url)).failure is None
            assert (await asker.ask(server.url)).failure is Failure.STALE
            assert (await asker.ask(server.url)).failure is None

    run(main())


def test_a_kept_connection_that_breaks_within_an_answer_is_not_stale(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(REPLY)
        await peer.request()
        await peer.send(b"HTTP/1.1 2")

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            assert (await asker.ask(server.url)).failure is None
            assert (await asker.ask(server.url)).failure is Failure.RESET

    run(main())


def test_a_connection_seen_to_close_while_idle_is_never_lent(run: Run) -> None:
    async def main() -> None:
        async with serve(once(REPLY)) as server, asking() as asker:
            for _ in range(3):
                assert (await asker.ask(server.url)).failure is None
                await asyncio.sleep(0.02)
            assert len(server.peers) == 3

    run(main())


def test_above_the_limit_calls_wait_in_order(run: Run) -> None:
    order: list[bytes] = []
    most = 0

    async def script(peer: Peer) -> None:
        nonlocal most
        while True:
            _, body = await peer.request()
            order.append(body)
            most = max(most, peer.number + 1)
            await asyncio.sleep(0.002)
            await peer.send(REPLY)

    async def main() -> None:
        async with serve(script) as server, asking(limits=Limits(connections=2)) as asker:
            calls = [asker.send(server.url, body=b"%02d" % number) for number in range(20)]
            for call in calls:
                assert (await call.end()).failure is None
            assert most == 2
            assert order[2:] == sorted(order)[2:]

    run(main())


def test_waiting_for_our_own_limit_is_no_fault_of_the_provider(run: Run) -> None:
    """A call for which no connection comes free fails after the connect timeout, as what it is."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(10)

    async def main() -> None:
        async with serve(script) as server, asking(limits=Limits(connections=1)) as asker:
            first = asker.send(server.url)
            second = await asker.ask(server.url, timeouts=Timeouts(connect=0.1))
            assert second.failure is Failure.POOL_FULL
            third = await asker.ask(server.url, timeouts=Timeouts(connect=0.1))
            assert third.failure is Failure.POOL_FULL
            assert not first.is_over

    run(main())


def test_a_cancelled_call_leaves_the_queue(run: Run) -> None:
    async def script(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            await asyncio.sleep(0.05)
            await peer.send(answer(body))

    async def main() -> None:
        async with serve(script) as server, asking(limits=Limits(connections=1)) as asker:
            first, second, third = (asker.send(server.url, body=body) for body in (b"1", b"2", b"3"))
            assert second.call
            second.call.cancel()
            assert (await first.end()).body == b"1"
            assert (await third.end()).body == b"3"
            assert not second.is_over

    run(main())


def test_a_connection_that_breaks_makes_room_for_a_waiting_call(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.02)
        if peer.number:
            await peer.send(REPLY)

    async def main() -> None:
        async with serve(script) as server, asking(limits=Limits(connections=1)) as asker:
            first, second = asker.send(server.url), asker.send(server.url)
            assert (await first.end()).failure is Failure.RESET
            assert (await second.end()).failure is None

    run(main())


def test_a_waiting_call_takes_a_freed_connection_before_its_own_is_open(run: Run) -> None:
    async def main() -> None:
        async with serve(always(REPLY)) as server, asking() as asker:
            await asker.ask(server.url)
            calls = [asker.send(server.url) for _ in range(3)]
            for call in calls:
                await call.end()
            assert len(server.peers) <= 3

    run(main())


def test_no_more_than_the_idle_limit_are_kept(run: Run) -> None:
    async def main() -> None:
        async with serve(always(REPLY)) as server, asking(limits=Limits(idle=2)) as asker:
            for call in [asker.send(server.url) for _ in range(6)]:
                await call.end()
            pool = asker.client.pool(server.url, Tls())
            assert len(pool._idle) == len(pool._connections) <= 2

    run(main())


def test_idle_connections_of_a_quiet_client_are_closed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("upstack.foundation.upstream.sweeper.SLOW", 0.05)
    left = 0

    async def script(peer: Peer) -> None:
        nonlocal left
        try:
            while True:
                await peer.request()
                await peer.send(REPLY)
        finally:
            left += 1

    async def main() -> None:
        async with serve(script) as server, asking(limits=Limits(idle_s=0.2)) as asker:
            for call in [asker.send(server.url) for _ in range(3)]:
                await call.end()
            await asyncio.sleep(0.1)
            assert not left
            await until(lambda: left == len(server.peers))
            await until(lambda: asker.client._sweeper._timer is None)

    run(main())


def test_a_refused_connection_names_host_and_port(run: Run) -> None:
    async def main() -> None:
        port = unused_port()
        async with asking() as asker:
            got = await asker.ask(f"http://localhost:{port}")
            assert got.failure is Failure.REFUSED
            assert got.error
            assert got.error.message == f"localhost:{port}: connection refused"

    run(main())


def test_each_of_several_refused_calls_is_told(run: Run) -> None:
    async def main() -> None:
        port = unused_port()
        async with asking(limits=Limits(connections=3)) as asker:
            calls = [asker.send(f"http://127.0.0.1:{port}") for _ in range(10)]
            for call in calls:
                assert (await call.end()).failure is Failure.REFUSED

    run(main())


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".invalid"])
def test_a_name_that_cannot_be_resolved_is_refused(run: Run, host: str) -> None:
    async def main() -> None:
        async with asking() as asker:
            if host == "no-such-host.invalid":
                got = await asker.ask(f"http://{host}:1")
                assert got.failure is Failure.REFUSED
                assert got.error
                assert got.error.message == f"{host}:1: its name cannot be resolved"
            else:
                with pytest.raises(Exception, match="base_url") as raised:
                    asker.send(f"http://{host}:1")
                assert raised.value.failure is Failure.REFUSED  # type: ignore[attr-defined]

    run(main())


def test_an_address_that_does_not_answer_does_not_hold_up_the_next(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(host: str, port: int, **_: int) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, 1, 6, "", (f"127.0.0.{last}", port)) for last in (2, 1)]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serve(always(REPLY)) as server, asking() as asker:
            with hanging("127.0.0.2", server.port):
                monkeypatch.setattr(loop, "getaddrinfo", found)
                started = loop.time()
                got = await asker.ask(f"http://two.test:{server.port}")
                assert got.failure is None
                assert 0.2 < loop.time() - started < 1.5

    run(main())


def test_a_closed_client_cancels_what_is_in_flight_and_refuses_the_rest(run: Run) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        gone.set()

    gone = asyncio.Event()

    async def main() -> None:
        async with serve(script) as server, asking() as asker:
            first = asker.send(server.url)
            await until(lambda: bool(server.peers))
            await asyncio.sleep(0.02)
            await asker.client.close()
            async with asyncio.timeout(1):
                await gone.wait()
            assert not first.is_over
            assert (await asker.ask(server.url)).failure is Failure.REFUSED

    run(main())
