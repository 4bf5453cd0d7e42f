from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests import plain
from tests.testing.kit import TEXT, ask_raw, chat
from upstack.testing import (
    Answer,
    Blackhole,
    ChatRequest,
    EchoProvider,
    End,
    Fault,
    FlakyProvider,
    RawClient,
    ScriptedProvider,
    eventually,
    post_bytes,
)

SRC = Path(__file__).resolve().parents[2] / "src"


def with_client(provider: Any, body: Callable[[RawClient], Coroutine[Any, Any, None]]) -> None:
    """Run `body` with one connection to the provider."""

    async def go() -> None:
        async with RawClient(provider.port) as client:
            await body(client)

    asyncio.run(go())


def test_requests_are_recorded_as_they_came() -> None:
    """Method, path with query, headers in order and repeated, and the body's bytes are kept."""
    body = b'{"model":"m",  "messages":[]}'
    with EchoProvider() as provider:
        ask_raw(provider, body, headers="X-One: 1\r\nX-Two: a\r\nx-two: b\r\n")
        plain.get(f"{provider.base_url}/models?page=2")
        sent, listed = provider.requests
    assert (sent.method, sent.path, sent.body) == ("POST", "/v1/chat/completions", body)
    assert sent.header("x-one") == "1"
    assert sent.all("x-two") == ["a", "b"]
    assert sent.json()["model"] == "m"
    assert listed.path == "/v1/models?page=2"
    assert (sent.connection, listed.connection) == (1, 2)
    assert provider.count == 1  # chat requests alone


def test_a_connection_is_kept_between_requests() -> None:
    """Requests of one connection are counted on one connection, and it is open until the client leaves."""
    with EchoProvider() as provider:
        with plain.client() as client:
            for _ in range(3):
                client.post(f"{provider.base_url}/chat/completions", json=chat())
            assert provider.open_connections == 1
        asyncio.run(eventually(lambda: provider.open_connections == 0, "the client has left"))
        assert provider.connections == 1
        assert not provider.disconnects


def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests that come in one packet, plain ones between slow streams, get their answers in their order."""

    async def go(client: RawClient) -> None:
        bodies = [chat(f"number {index}", stream=index % 2 == 0) for index in range(6)]
        await client.send(b"".join(map(post_bytes, bodies)))
        for index in range(6):
            assert (await client.read()).text == f"number {index}"

    with EchoProvider(between_chunks_s=0.002) as provider:
        with_client(provider, go)
        assert provider.connections == 1


def test_a_request_may_come_byte_by_byte_or_in_chunks() -> None:
    """However a request is cut and framed, it is read."""

    async def go(client: RawClient) -> None:
        await client.send(post_bytes(chat("slow")), pace_s=0.0)
        assert (await client.read()).text == "slow"
        whole = post_bytes(chat("chunked")).partition(b"\r\n\r\n")[2]
        lines = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        chunks = b"".join(b"%x\r\n%b\r\n" % (1, whole[at : at + 1]) for at in range(len(whole)))
        await client.send(lines + chunks + b"0\r\n\r\n")
        assert (await client.read()).text == "chunked"

    with EchoProvider() as provider:
        with_client(provider, go)


def test_a_client_that_waits_to_send_its_body_is_told_to() -> None:
    """`Expect: 100-continue` is answered before the body comes."""

    async def go(client: RawClient) -> None:
        request = post_bytes(chat(), headers="expect: 100-continue\r\n")
        lines, _, body = request.partition(b"\r\n\r\n")
        await client.send(lines + b"\r\n\r\n")
        assert await client.read_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.read()).text == TEXT

    with EchoProvider() as provider:
        with_client(provider, go)


def test_connection_close_is_obeyed() -> None:
    """A client that says so gets its answer and then FIN."""

    async def go(client: RawClient) -> None:
        assert (await client.ask(chat(), headers="connection: close\r\n")).text == TEXT
        assert await client.closed()

    with EchoProvider() as provider:
        with_client(provider, go)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (post_bytes(b"{not json"), 400),
        (post_bytes({"messages": 5}), 400),
        (post_bytes({}, path="/v1/embeddings"), 404),
        (b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n", 405),
    ],
)
def test_what_it_does_not_understand_is_an_error_in_the_openai_shape(sent: bytes, status: int) -> None:
    """Bad requests get a 4xx whose body says what is wrong."""

    async def go(client: RawClient) -> None:
        await client.send(sent)
        answer = await client.read()
        assert (answer.status, answer.end) == (status, End.WHOLE)
        assert answer.json()["error"]["type"] == "invalid_request_error"

    with EchoProvider() as provider:
        with_client(provider, go)


@pytest.mark.parametrize("leave", [RawClient.close, RawClient.reset, RawClient.shut_down])
def test_a_client_that_leaves_in_mid_answer_is_noticed(leave: Callable[[RawClient], None]) -> None:
    """FIN, RST and a half-closed connection all count as hanging up, at once."""

    async def go(client: RawClient) -> None:
        await client.post(chat(stream=True))
        await client.read_some()
        leave(client)
        await eventually(lambda: len(provider.disconnects) == 1, "the client has left", 2.0)
        assert provider.open_connections == 0

    with FlakyProvider(Fault.STALL_BETWEEN_TOKENS) as provider:
        with_client(provider, go)


def test_a_client_that_leaves_after_its_answer_has_not_hung_up() -> None:
    """Only unfinished answers count."""
    with EchoProvider() as provider:
        assert ask_raw(provider, chat(stream=True)).end is End.WHOLE
        asyncio.run(eventually(lambda: provider.open_connections == 0, "the client has left"))
        assert not provider.disconnects


def test_it_refuses_and_accepts_again_on_the_same_port() -> None:
    """A provider can go away, cutting who is connected, and come back."""

    async def go() -> None:
        async with RawClient(provider.port) as client:
            assert (await client.ask(chat())).text == TEXT
            provider.refuse()
            assert await client.closed()
        with pytest.raises(ConnectionRefusedError):
            await RawClient(provider.port).connect()
        provider.accept()
        async with RawClient(provider.port) as client:
            assert (await client.ask(chat())).text == TEXT

    with EchoProvider() as provider:
        asyncio.run(go())


def test_stopping_leaves_nothing_behind() -> None:
    """After the context the thread has ended, connections are cut and nobody listens; stopping twice is harmless."""

    async def go() -> None:
        provider = EchoProvider().start()
        async with RawClient(provider.port) as client:
            await client.ask(chat())
            provider.stop()
            assert await client.closed()
        provider.stop()
        with pytest.raises(ConnectionRefusedError):
            await RawClient(provider.port).connect()

    before = threading.active_count()
    asyncio.run(go())
    assert threading.active_count() == before


def test_a_port_can_be_chosen_and_a_taken_one_is_refused() -> None:
    """The port that was asked for is used, or OSError says that it is not free."""
    with EchoProvider() as provider:
        with pytest.raises(OSError, match="in use"):
            EchoProvider(port=provider.port).start()
        port = provider.port
    with EchoProvider(port=port) as provider:
        assert provider.base_url == f"http://127.0.0.1:{port}/v1"


def test_what_a_script_raises_fails_its_test() -> None:
    """The client sees a 500; the test sees the exception when the provider stops."""

    def raising(request: ChatRequest) -> Answer:
        raise LookupError(request.model)

    with pytest.raises(LookupError, match="echo-1"), ScriptedProvider(raising) as provider:
        assert ask_raw(provider, chat()).status == 500
    assert isinstance(provider.errors[0], LookupError)


def test_recorded_bodies_are_bounded() -> None:
    """The oldest requests are forgotten when 64 MiB of bodies are kept."""
    with EchoProvider() as provider:
        for _ in range(8):
            plain.post(f"{provider.base_url}/files", content=bytes(9 * 1024 * 1024))
        assert provider.connections == 8
        assert len(provider.requests) == 7


def test_it_serves_many_connections_at_once() -> None:
    """A load of 64 connections is answered whole, plain and streamed."""

    async def caller(number: int) -> set[tuple[int, End, str]]:
        async with RawClient(provider.port, timeout_s=30) as client:
            answers = [await client.ask(chat(stream=(number + turn) % 4 == 0)) for turn in range(30)]
        return {(answer.status, answer.end, answer.text) for answer in answers}

    async def go() -> list[set[tuple[int, End, str]]]:
        return await asyncio.gather(*map(caller, range(64)))

    with EchoProvider() as provider:
        assert set().union(*asyncio.run(go())) == {(200, End.WHOLE, TEXT)}
        assert provider.count == 64 * 30
        assert provider.connections == 64


def test_a_blackhole_neither_accepts_nor_refuses() -> None:
    """Connecting to it lasts until the client gives up."""

    async def go() -> None:
        with Blackhole() as hole, pytest.raises(TimeoutError):
            await RawClient(int(hole.base_url.split(":")[2].split("/")[0]), timeout_s=0.2).connect()

    asyncio.run(go())


def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    """`python -m upstack.testing` prints its URL, serves, and ends cleanly on SIGTERM and SIGINT."""
    answers = tmp_path / "answers.jsonl"
    answers.write_text('{"content":"first"}\n\n{"content":"second","output_tokens":9}\n')
    kinds = [["echo"], ["scripted", "--answers", str(answers)], ["flaky", "--fault", "status_503"], ["flood"]]
    with contextlib.ExitStack() as stack:
        processes = []
        for kind in kinds:
            command = [sys.executable, "-m", "upstack.testing", *kind]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(SRC)}, text=True)
            stack.callback(process.kill)
            stack.enter_context(process)
            processes.append(process)
        urls = [process.stdout.readline().strip() for process in processes if process.stdout]
        answer = [plain.post(f"{url}/chat/completions", json=chat()) for url in urls[:3]]
        assert answer[0].json()["choices"][0]["message"]["content"] == TEXT
        assert answer[1].json()["choices"][0]["message"]["content"] == "first"
        assert answer[2].status_code == 503
        for process, stop in zip(processes, [signal.SIGTERM, signal.SIGINT] * 2, strict=True):
            process.send_signal(stop)
            assert process.wait(10) == 0


def test_a_wrong_command_line_says_what_is_allowed() -> None:
    """An unknown fault is refused with the list of faults."""
    command = [sys.executable, "-m", "upstack.testing", "flaky", "--fault", "no_such"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(SRC)})
    assert done.returncode == 2
    assert "stall_between_tokens" in done.stderr


def test_nothing_but_loopback_is_bound() -> None:
    """Other addresses of the machine are refused."""
    with EchoProvider() as provider, socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", provider.port)) != 0
