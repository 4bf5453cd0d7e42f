"""Reload, drain, callers that leave or do not read."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import plain
from tests.gateway.serving import SRC, Serving, chat, provider
from upstack.application.gateway.reloader import SETTLE
from upstack.testing import Answer, EchoProvider, FloodProvider, RawClient, ScriptedProvider, post_bytes


def config_of(echo: EchoProvider, order: str = '"a/m", "b/m"') -> str:
    """Two providers and a task over them."""
    tables = provider("a", echo.base_url) + provider("b", echo.base_url)
    return f"[tasks.t]\ncandidates = [{order}]\n{tables}"


def generation(serving: Serving) -> int:
    """How many states there have been."""
    return int(serving.get("/metrics").text.split("\nupstack_config_generation ")[1].split(".")[0])


@pytest.mark.timeout(120)
def test_100_reloads_during_10000_requests_fail_nothing(tmp_path: Path) -> None:
    """The state is swapped by signal, file change and command a hundred times while requests flow: none fails."""
    statuses: list[int] = []
    stop = threading.Event()

    def load() -> None:
        asked = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=30)
        body = json.dumps(chat("task/t"))
        while not stop.is_set():
            asked.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            answer = asked.getresponse()
            answer.read()
            statuses.append(answer.status)
        asked.close()

    with EchoProvider() as echo, Serving(tmp_path, config_of(echo)) as serving:
        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(1, 101):
            order = '"b/m", "a/m"' if number % 2 else '"a/m", "b/m"'
            serving.config.write_text(config_of(echo, order))  # in place, so that half a file can be seen
            if number % 10 == 0:
                pass  # the change is noticed by itself
            elif number % 2:
                serving.process.send_signal(signal.SIGHUP)
            else:
                answer = plain.post(f"{serving.url}/admin/reload", headers={"x-upstack-admin": "1"}, timeout=30)
                assert answer.status_code == 200
            while generation(serving) <= number:
                time.sleep(0.005)
        while len(statuses) < 10_000:
            time.sleep(0.01)
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}


def test_a_file_cut_while_it_is_written_is_not_read(tmp_path: Path) -> None:
    """Of a file that is being written, what stands so far may be valid and lack a task: it is not taken for whole."""
    with EchoProvider() as echo:
        providers = provider("a", echo.base_url)
        with Serving(tmp_path, providers + '[tasks.t]\nreference = "a/m"\n') as serving:
            for number in range(60):
                began = time.monotonic()
                serving.config.write_text(providers)
                serving.process.send_signal(signal.SIGHUP)
                with serving.config.open("a") as file:
                    status = serving.post(chat("task/t")).status_code
                    file.write(f'[tasks.t]\nreference = "a/m"\n[tasks.new{number}]\nreference = "a/m"\n')
                quick = time.monotonic() - began < SETTLE  # else the test, not the gateway, was too slow
                while serving.post(chat(f"task/new{number}")).status_code != 200:
                    time.sleep(0.01)
                if quick:
                    break
    if not quick:
        pytest.skip("this machine never wrote the file and asked within the time that it must stand still for")
    assert status == 200


def test_a_file_left_empty_is_refused(tmp_path: Path) -> None:
    """A writer that died, or found the disk full, leaves an empty file, which is valid TOML and says nothing."""
    with EchoProvider() as echo, Serving(tmp_path, config_of(echo)) as serving:
        serving.config.write_text("")
        answer = plain.post(f"{serving.url}/admin/reload", headers={"x-upstack-admin": "1"})
        assert answer.status_code == 422
        assert "empty" in answer.json()["error"]["message"]
        assert serving.post(chat("task/t")).status_code == 200


def test_a_broken_file_is_refused_and_the_old_state_stays(tmp_path: Path) -> None:
    """A reload that fails says why, at the command and in the log, and changes nothing."""
    with EchoProvider() as echo, Serving(tmp_path, config_of(echo)) as serving:
        serving.config.write_text(config_of(echo) + "\n[server]\nprot = 1\n")
        answer = plain.post(f"{serving.url}/admin/reload", headers={"x-upstack-admin": "1"})
        assert answer.status_code == 422
        assert "server.prot" in answer.json()["error"]["message"]
        assert "`port`" in answer.json()["error"]["message"]
        deadline = time.monotonic() + 5
        serving.process.send_signal(signal.SIGHUP)
        while "NOT reloaded" not in serving.log and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "NOT reloaded" in serving.log
        assert serving.post(chat("task/t")).status_code == 200


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """Nobody need say that the file has changed."""
    with EchoProvider() as echo, Serving(tmp_path, config_of(echo)) as serving:
        serving.config.write_text(config_of(echo) + '[tasks.new]\nreference = "a/m"\n')
        deadline = time.monotonic() + 5
        while serving.post(chat("task/new")).status_code != 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert serving.post(chat("task/new")).status_code == 200


def test_reload_needs_the_admin_header(tmp_path: Path) -> None:
    """A page in a browser cannot trigger a reload."""
    with EchoProvider() as echo, Serving(tmp_path, config_of(echo)) as serving:
        assert plain.post(f"{serving.url}/admin/reload").status_code == 403


def test_sigterm_drains(tmp_path: Path) -> None:
    """Told to stop, it turns unready, refuses new requests, lets a stream finish, flushes receipts and exits with 0."""
    answer = Answer("one two three four", chunks=("one ", "two ", "three ", "four"), between_chunks_s=0.3)
    with ScriptedProvider(lambda _: answer) as slow, Serving(tmp_path, provider("slow", slow.base_url)) as serving:

        async def run() -> None:
            async with RawClient(serving.port) as streaming, RawClient(serving.port) as other:
                await streaming.post(chat("slow/m", stream=True))
                await asyncio.sleep(0.4)
                serving.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.1)
                await other.send(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
                assert (await other.read()).status == 503
                refused = await other.ask(chat("slow/m"))
                assert refused.json()["error"]["code"] == "draining"
                whole = await streaming.read()
                assert whole.text == "one two three four"
                assert whole.events[-1] == b"[DONE]"

        asyncio.run(run())
        assert serving.process.wait(10) == 0
        assert serving.rows("select state from receipts") == [("answered",)]


def test_a_drain_that_takes_too_long_ends_streams_with_an_error(tmp_path: Path) -> None:
    """What is still under way at the limit gets an error event and a truncated receipt, never a clean end."""
    answer = Answer("x", chunks=("x ",) * 200, between_chunks_s=0.1)
    config = "[server]\ndrain = 0.3\n"
    slow = ScriptedProvider(lambda _: answer)
    with slow, Serving(tmp_path, config + provider("slow", slow.base_url)) as serving:

        async def run() -> None:
            async with RawClient(serving.port) as streaming:
                await streaming.post(chat("slow/m", stream=True))
                await asyncio.sleep(0.4)
                serving.process.send_signal(signal.SIGTERM)
                cut = await streaming.read()
                assert b"error" in cut.events[-1]
                assert b"[DONE]" not in cut.events

        asyncio.run(run())
        assert serving.process.wait(10) == 0
        assert serving.rows("select state from receipts") == [("truncated",)]


def test_a_drain_that_takes_too_long_answers_plain_requests_with_503(tmp_path: Path) -> None:
    """A plain request still waited for at the limit is told so, and its attempt stands on the receipt."""
    slow = ScriptedProvider(lambda _: Answer("x", first_byte_delay_s=30.0))
    with slow:
        config = "[server]\ndrain = 0.3\n" + provider("slow", slow.base_url).replace(
            "first_byte = 1", "first_byte = 20"
        )
        with Serving(tmp_path, config) as serving:

            async def run() -> None:
                async with RawClient(serving.port) as caller:
                    await caller.post(chat("slow/m"))
                    await asyncio.sleep(0.4)
                    serving.process.send_signal(signal.SIGTERM)
                    answer = await caller.read()
                    assert (answer.status, answer.json()["error"]["code"]) == (503, "gateway_stopping")

            asyncio.run(run())
            assert serving.process.wait(10) == 0
            [(state, cost, attempts)] = serving.rows("select state, cost_picodollars, attempts from receipts")
            assert (state, cost) == ("failed", None), "the provider may bill it"
            assert "gateway_stopping" in attempts


def test_a_caller_that_leaves_cancels_the_provider(tmp_path: Path) -> None:
    """Within a second of the hang-up the provider's connection is gone, and the receipt says so."""
    stream = Answer("x", chunks=("x ",) * 500, between_chunks_s=0.05)
    plain = Answer("x", first_byte_delay_s=10.0)
    with ScriptedProvider(lambda request: stream if request.stream else plain) as slow:
        serving = Serving(tmp_path, provider("slow", slow.base_url, "").replace("first_byte = 1", "first_byte = 20"))

        async def run(*, stream: bool) -> None:
            async with RawClient(serving.port) as caller:
                await caller.post(chat("slow/m", stream=stream))
                await asyncio.sleep(0.4)
            left = time.monotonic()
            while slow.open_connections and time.monotonic() < left + 1:
                await asyncio.sleep(0.01)
            assert not slow.open_connections

        with serving:
            asyncio.run(run(stream=True))
            asyncio.run(run(stream=False))
            time.sleep(0.3)
            assert serving.rows("select state, error from receipts") == [("cancelled", "client_gone")] * 2
            assert serving.get("/metrics").text.count("upstack_in_flight 0.0") == 1


@pytest.mark.parametrize(
    "behind",
    [
        post_bytes(chat("slow/m")),
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n" * 3000,  # more than is read ahead
    ],
)
def test_a_caller_that_leaves_with_requests_queued_cancels_the_provider(tmp_path: Path, behind: bytes) -> None:
    """What waits behind the answer does not hide that nobody waits for it any more."""
    with ScriptedProvider(lambda _: Answer("x", first_byte_delay_s=60.0)) as slow:
        config = provider("slow", slow.base_url).replace("first_byte = 1", "first_byte = 60")
        with Serving(tmp_path, config) as serving:
            with socket.create_connection(("127.0.0.1", serving.port), 5) as caller:
                caller.sendall(post_bytes(chat("slow/m")))
                wait_until(lambda: slow.count == 1)
                caller.sendall(behind)
                time.sleep(0.2)  # it may read some of that
            wait_until(lambda: not slow.open_connections)
            assert slow.count == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_never_reads_its_answer_is_let_go(tmp_path: Path, stream: bool) -> None:
    """An answer that is over, whole or cut, does not hold its connection for a caller that takes none of it."""
    whole = ScriptedProvider(lambda _: Answer("x" * 20_000_000))
    with FloodProvider(200.0) if stream else whole as fake:
        config = provider("fake", fake.base_url).replace("total = 20", "total = 1")
        with Serving(tmp_path, "[server]\nkeep_alive = 0.4\n" + config) as serving, socket.socket() as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", serving.port))
            caller.sendall(post_bytes(chat("fake/m", stream=stream)))
            wait_until(lambda: serving.rows("select 1 from receipts where state != 'open'") != [])
            wait_until(lambda: not held(serving.port, caller.getsockname()[1]))


def held(port: int, peer: int) -> bool:
    """Whether a process still has the connection from `peer` to `port`; the kernel may keep it longer."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(int(row[1][-4:], 16), int(row[2][-4:], 16), row[9]) for row in rows]  # ports in hexadecimal, inode
    return any((here, there) == (port, peer) and inode != "0" for here, there, inode in ends)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what comes by itself; fail where it does not."""
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_caller_that_does_not_read_holds_the_provider_back(tmp_path: Path) -> None:
    """Of 200 MB pushed at a caller that does not read, less than 32 MB are pulled, and its hang-up cancels the rest."""
    with FloodProvider(200.0) as flood, Serving(tmp_path, provider("flood", flood.base_url)) as serving:

        async def run() -> int:
            async with RawClient(serving.port, receive_buffer=64 * 1024) as caller:
                await caller.post(chat("flood/m", stream=True))
                await asyncio.sleep(1.5)
                pulled = flood.bytes_accepted
            left = time.monotonic()
            while flood.open_connections and time.monotonic() < left + 1:
                await asyncio.sleep(0.01)
            assert not flood.open_connections
            return pulled

        assert asyncio.run(run()) < 32 * 1024 * 1024


@pytest.mark.parametrize("line", ['host = "::1"', "ledger_queue_bytes = 1000000"])
def test_a_key_that_cannot_change_while_serving_is_refused(tmp_path: Path, line: str) -> None:
    """A reload that would be ignored in part is refused as a whole, and names the key."""
    with EchoProvider() as echo, Serving(tmp_path, config_of(echo)) as serving:
        serving.config.write_text(f"[server]\n{line}\n{config_of(echo)}")
        answer = plain.post(f"{serving.url}/admin/reload", headers={"x-upstack-admin": "1"}, timeout=30)
        assert answer.status_code == 422
        assert f"server.{line.partition(' ')[0]} cannot change" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("kept", "kind"), [(None, "FileNotFoundError"), (100_000, "DecodeError")], ids=["missing", "cut short"]
)
def test_a_broken_price_list_is_told_and_outlived(tmp_path: Path, kept: int | None, kind: str) -> None:
    """A half installed package is one line of the log; the gateway serves on, and listed prices are unknown."""
    site = tmp_path / "site"
    shutil.copytree(SRC / "upstack", site / "upstack", ignore=shutil.ignore_patterns("__pycache__"))
    file = site / "upstack" / "foundation" / "prices.json"
    whole = file.read_bytes()
    file.unlink() if kept is None else file.write_bytes(whole[:kept])
    with EchoProvider() as echo:
        config = provider("openai", echo.base_url) + '[tasks.t]\nreference = "openai/m"\n'
        config += '[prices."openai/m"]\ninput = 1.0\noutput = 1.0\n[routes.listed]\nmodel = "openai/gpt-4o"\n'
        with Serving(tmp_path, config, env={"PYTHONPATH": str(site)}) as serving:
            wait_until(lambda: f"the price list could not be loaded; going on error={kind}" in serving.log)
            for model in ("task/t", "listed", "openai/gpt-4o-mini"):
                assert serving.post(chat(model)).status_code == 200
            rows = serving.rows("select model, cost_picodollars is null from receipts order by rowid")
            assert rows == [("task/t", 0), ("listed", 1), ("openai/gpt-4o-mini", 1)]
            assert serving.log.count("error=") == 1
