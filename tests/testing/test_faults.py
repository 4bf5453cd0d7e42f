"""Every fault, as it is on the wire: what came, and how it ended."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
import zlib

import pytest

from tests import plain
from tests.testing.kit import TEXT, ask_raw, chat
from upstack.testing import End, Fault, FlakyProvider, RawClient, RawResponse, Strikes, eventually, server

BOTH = (False, True)
MIB = 1024 * 1024
SILENCE_S = 0.15


def strike(fault: Fault, *, stream: bool, timeout_s: float = 5.0, text: str = TEXT) -> RawResponse:
    """What one request to a provider with this fault brings."""
    with FlakyProvider(fault) as provider:
        return ask_raw(provider, chat(text, stream=stream), timeout_s=timeout_s)


# How an answer ends for a reader that knows HTTP only: fault -> (plain, stream).
ENDS = {
    Fault.RESET_BEFORE_HEADERS: (End.RESET, End.RESET),
    Fault.RESET_AFTER_HEADERS: (End.RESET, End.RESET),
    Fault.RESET_MID_BODY: (End.RESET, End.RESET),
    Fault.RESET_MID_CHUNK: (End.RESET, End.RESET),
    Fault.CLOSE_BEFORE_HEADERS: (End.CLOSED, End.CLOSED),
    Fault.CLOSE_MID_STREAM: (End.CLOSED, End.CLOSED),
    Fault.SHORT_BODY: (End.CLOSED, End.CLOSED),
    Fault.STALL_BEFORE_HEADERS: (End.SILENT, End.SILENT),
    Fault.STALL_BEFORE_FIRST_TOKEN: (End.SILENT, End.SILENT),
    Fault.STALL_BETWEEN_TOKENS: (End.SILENT, End.SILENT),
    Fault.MALFORMED_HTTP: (End.BAD, End.BAD),
    Fault.MALFORMED_CHUNK: (End.BAD, End.BAD),
}
TOO_LARGE_FOR_HERE = {Fault.HEADER_FLOOD, Fault.GZIP_BOMB, Fault.SLOW_DRIP, Fault.REFUSED}
SENDS_NO_HEAD = {
    Fault.RESET_BEFORE_HEADERS,
    Fault.CLOSE_BEFORE_HEADERS,
    Fault.STALL_BEFORE_HEADERS,
    Fault.MALFORMED_HTTP,
}


@pytest.mark.parametrize("stream", BOTH)
@pytest.mark.parametrize("fault", [fault for fault in Fault if fault not in TOO_LARGE_FOR_HERE])
def test_what_was_said_before_it_struck_is_as_documented(fault: Fault, stream: bool) -> None:
    """An answer that a fault spoils before the content holds none, after it some and never all that is well formed."""
    silent = "stall" in fault
    answer = strike(fault, stream=stream, timeout_s=SILENCE_S if silent else 5.0)
    assert answer.end is ENDS.get(fault, (End.WHOLE, End.WHOLE))[stream]
    assert (answer.status == 0) == (fault in SENDS_NO_HEAD)
    strikes = fault.stream if stream else fault.plain
    if strikes is Strikes.NEVER and fault not in (Fault.GZIP_BODY, Fault.HUGE_EVENT):
        expected = {
            Fault.EMPTY_STOP: "",
            Fault.DUPLICATE_CHUNK: "one two three three four five six" if stream else TEXT,
        }
        assert answer.text == expected.get(fault, TEXT)
    if strikes is Strikes.AFTER:
        assert answer.text.startswith("one two three ")
    if stream and strikes is Strikes.BEFORE and fault is not Fault.LENGTH_AND_CHUNKED:
        is_stream = (answer.header("content-type") or "").startswith("text/event-stream")
        assert answer.status != 200 or not is_stream or answer.text == ""


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault.stream is Strikes.AFTER])
def test_after_some_tokens_can_mean_none(fault: Fault) -> None:
    """With `tokens_before` 0 the same faults strike before the first content, and say so."""
    with FlakyProvider(fault, tokens_before=0) as provider:
        assert not fault.before_content(stream=True)
        assert provider.before_content(stream=True) == (fault is not Fault.MISSING_FINISH)
        answer = ask_raw(provider, chat(stream=True), timeout_s=SILENCE_S if "stall" in fault else 5.0)
    good = []
    for event in answer.events:
        try:
            good.append(json.loads(event))
        except ValueError:
            break
    struck = next((at for at, each in enumerate(good) if "error" in each), len(good))
    if fault is not Fault.MISSING_FINISH:
        assert all(not each["choices"][0]["delta"].get("content") for each in good[:struck])


def test_properties_agree() -> None:
    """A fault is harmless, or strikes before or after the first content, and is nothing else."""
    for fault in Fault:
        for stream in BOTH:
            strikes = fault.stream if stream else fault.plain
            assert fault.harmless(stream=stream) == (strikes is Strikes.NEVER)
            assert fault.before_content(stream=stream) == (strikes is Strikes.BEFORE)
        assert fault.plain is not Strikes.AFTER


def test_a_share_is_drawn_by_seed() -> None:
    """The same seed fails the same requests; the others are echoed."""

    def pattern(seed: int) -> list[int]:
        with FlakyProvider(Fault.STATUS_500, share=0.5, seed=seed) as provider, plain.client() as client:
            url = f"{provider.base_url}/chat/completions"
            found = [client.post(url, json=chat()).status_code for _ in range(40)]
            assert provider.failed == found.count(500)
            return found

    assert pattern(1) == pattern(1) != pattern(2)
    assert set(pattern(1)) == {200, 500}


def test_refused_is_refused() -> None:
    """Nobody listens, on a port that stays ours; it can be let in and shut out again."""
    with FlakyProvider(Fault.REFUSED) as provider:
        with pytest.raises(ConnectionRefusedError):
            ask_raw(provider, chat())
        provider.accept()
        assert ask_raw(provider, chat()).text == TEXT
        provider.refuse()
        with pytest.raises(ConnectionRefusedError):
            ask_raw(provider, chat())


def test_refusing_a_share_is_an_error() -> None:
    """A connection is refused before there is a request to draw for."""
    with pytest.raises(ValueError, match="accept"):
        FlakyProvider(Fault.REFUSED, share=0.5)


def test_an_unknown_fault_is_an_error() -> None:
    """Faults may be named by their values; the message lists them."""
    assert FlakyProvider("status_429").fault is Fault.STATUS_429
    with pytest.raises(ValueError, match="status_429_date"):
        FlakyProvider("no_such")


@pytest.mark.parametrize("stream", BOTH)
def test_resets_are_resets(stream: bool) -> None:
    """The bytes before a reset arrive: headers, whole events, half of an event."""
    assert strike(Fault.RESET_AFTER_HEADERS, stream=stream).body == b""
    whole = strike(Fault.EARLY_CLOSE, stream=stream)
    between = strike(Fault.RESET_MID_BODY, stream=stream)
    assert 0 < len(between.body) < len(whole.body)
    if stream:
        assert len(between.chunks) == 4  # role and three tokens


def test_mid_chunk_cuts_inside_a_chunk() -> None:
    """The last bytes are part of a chunk whose size was announced."""

    async def go() -> bytes:
        with FlakyProvider(Fault.RESET_MID_CHUNK) as provider:
            async with RawClient(provider.port) as client:
                await client.post(chat(stream=True))
                found = b""
                while True:
                    try:
                        found += await client.read_some()
                    except ConnectionResetError:
                        return found

    last = asyncio.run(go()).split(b"\r\n")
    assert int(last[-2], 16) > len(last[-1]) > 10


def test_unframed_close_looks_whole() -> None:
    """Without a length only the content tells that the answer was cut."""
    answer = strike(Fault.CLOSE_UNFRAMED, stream=True)
    assert answer.end is End.WHOLE
    assert answer.header("connection") == "close"
    assert answer.header("transfer-encoding") is None
    assert answer.events[-1] != b"[DONE]"


@pytest.mark.parametrize("stream", BOTH)
def test_early_close_makes_reuse_stale(stream: bool) -> None:
    """The answer is whole and says nothing of closing, and then the connection is gone."""

    async def go() -> None:
        with FlakyProvider(Fault.EARLY_CLOSE) as provider:
            async with RawClient(provider.port) as client:
                answer = await client.ask(chat(stream=stream))
                assert answer.text == TEXT
                assert answer.header("connection") is None
                assert await client.closed()
            assert not provider.disconnects

    asyncio.run(go())


def test_stalls_end_when_the_client_leaves() -> None:
    """A stalled answer holds its connection open until its client gives up, which is counted."""

    async def go() -> None:
        with FlakyProvider(Fault.STALL_BEFORE_FIRST_TOKEN) as provider:
            async with RawClient(provider.port) as client:
                await client.post(chat(stream=True))
                answer = await client.read(SILENCE_S)
                assert answer.end is End.SILENT
                assert json.loads(answer.events[0])["choices"][0]["delta"]["role"] == "assistant"
                assert provider.open_connections == 1
            await eventually(lambda: len(provider.disconnects) == 1, "the client has left")

    asyncio.run(go())


def test_latency_is_fixed_or_drawn() -> None:
    """A pair is a range to draw from."""
    for pause, low in ((0.1, 0.09), ((0.05, 0.1), 0.045)):
        with FlakyProvider(Fault.LATENCY, pause_s=pause) as provider:
            started = time.monotonic()
            assert ask_raw(provider, chat()).text == TEXT
            assert low < time.monotonic() - started < 3.0


@pytest.mark.parametrize("stream", BOTH)
def test_slow_drip_sends_single_bytes(stream: bool) -> None:
    """Every byte is a packet of its own, and together they are a good answer."""

    async def go() -> None:
        with FlakyProvider(Fault.SLOW_DRIP) as provider:
            async with RawClient(provider.port) as client:
                await client.post(chat("a", stream=stream))
                sizes = [len(await client.read_some()) for _ in range(20)]
                assert 1 in sizes  # a busy machine may join some
                assert sum(sizes) < 200

    asyncio.run(go())
    assert strike(Fault.SLOW_DRIP, stream=stream, text="a").text == "a"


def test_lengths_that_lie() -> None:
    """A short body ends before its length; a long one leaves bytes on a connection that stays open."""
    short = strike(Fault.SHORT_BODY, stream=False)
    assert len(short.body) < int(short.header("content-length") or 0)

    async def go() -> None:
        with FlakyProvider(Fault.LONG_BODY) as provider:
            async with RawClient(provider.port) as client:
                cut = await client.ask(chat())
                assert cut.end is End.WHOLE
                rest = await client.read_some()
                assert json.loads(cut.body + rest)["choices"][0]["message"]["content"] == TEXT

    asyncio.run(go())


@pytest.mark.parametrize("stream", BOTH)
def test_both_framings_at_once(stream: bool) -> None:
    """Content-length and transfer-encoding stand in the same head."""
    answer = strike(Fault.LENGTH_AND_CHUNKED, stream=stream)
    assert answer.header("content-length") is not None
    assert answer.header("transfer-encoding") == "chunked"


def test_a_header_flood_is_as_large_as_told() -> None:
    """Headers go on until `size_bytes`, and then the answer ends well: it is up to the client to stop before."""
    with FlakyProvider(Fault.HEADER_FLOOD, size_bytes=MIB) as provider:
        answer = ask_raw(provider, chat())
    assert answer.end is End.WHOLE
    assert sum(len(name) + len(value) for name, value in answer.headers) > 0.95 * MIB


@pytest.mark.parametrize("stream", BOTH)
def test_gzip_is_good_and_flushed_event_by_event(stream: bool) -> None:
    """A client that knows gzip gets the answer, each event when it is sent."""
    answer = strike(Fault.GZIP_BODY, stream=stream)
    assert answer.header("content-encoding") == "gzip"
    unpacker = zlib.decompressobj(wbits=31)
    if not stream:
        assert json.loads(unpacker.decompress(answer.body))["choices"][0]["message"]["content"] == TEXT
        return
    events = [unpacker.decompress(chunk) for chunk in answer.chunks]
    assert all(event.startswith(b"data: ") and event.endswith(b"\n\n") for event in events[:-1])
    assert events[-2] == b"data: [DONE]\n\n"
    assert unpacker.eof
    with FlakyProvider(Fault.GZIP_BODY) as provider:
        known = plain.post(f"{provider.base_url}/chat/completions", json=chat())
        assert known.json()["choices"][0]["message"]["content"] == TEXT


@pytest.mark.parametrize("stream", BOTH)
def test_a_gzip_bomb_unpacks_to_its_size(stream: bool) -> None:
    """A few kilobytes on the wire are `size_bytes` unpacked, valid gzip, and no end to the value they begin."""
    with FlakyProvider(Fault.GZIP_BOMB, size_bytes=16 * MIB) as provider:
        answer = ask_raw(provider, chat(stream=stream))
    assert answer.end is End.WHOLE
    assert len(answer.body) < 64 * 1024
    unpacked = zlib.decompress(answer.body, wbits=31)
    assert len(unpacked) >= 16 * MIB
    assert unpacked.startswith(b"data: {" if stream else b"{")


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault.startswith("status_")])
def test_statuses(fault: Fault) -> None:
    """The status is that of its name, and the body an OpenAI error (502: a proxy's HTML)."""
    answer = strike(fault, stream=True)
    assert answer.status == int(fault.split("_")[1])
    if fault is Fault.STATUS_502:
        assert answer.header("content-type") == "text/html"
    else:
        assert answer.json()["error"]["message"]


def test_retry_after_in_seconds_and_as_a_date() -> None:
    """Both forms name the time that was asked for."""
    for seconds, shown in ((7, "7"), (0.5, "0.5")):
        with FlakyProvider(Fault.STATUS_429, retry_after_s=seconds) as provider:
            assert ask_raw(provider, chat()).header("retry-after") == shown
    with FlakyProvider(Fault.STATUS_429_DATE, retry_after_s=90) as provider:
        date = ask_raw(provider, chat()).header("retry-after")
    assert date is not None
    assert date.endswith(" GMT")
    assert 85 < email.utils.parsedate_to_datetime(date).timestamp() - time.time() <= 91


def test_errors_inside_a_200() -> None:
    """An error object comes in place of an answer, as the first event, or after some tokens, and ends it."""
    assert "error" in strike(Fault.ERROR_BODY_200, stream=False).json()
    whole = strike(Fault.ERROR_BODY_200, stream=True)
    assert whole.header("content-type") == "application/json"
    assert "error" in whole.json()
    (first,) = strike(Fault.ERROR_IN_STREAM, stream=True).events
    assert "error" in json.loads(first)
    *tokens, last = strike(Fault.ERROR_MID_STREAM, stream=True).events
    assert len(tokens) == 4
    assert "error" in json.loads(last)


def test_content_that_is_no_answer() -> None:
    """HTML, cut JSON, no JSON, no UTF-8: framed well, with status 200."""
    page = strike(Fault.WRONG_CONTENT_TYPE, stream=True)
    assert (page.header("content-type") or "").startswith("text/html")
    for fault in (Fault.TRUNCATED_JSON, Fault.MALFORMED_JSON, Fault.MALFORMED_SSE):
        with pytest.raises(ValueError, match=r"line 1 column"):
            json.loads(strike(fault, stream=False).body)
    with pytest.raises(UnicodeDecodeError):
        strike(Fault.INVALID_UTF8, stream=False).body.decode()
    assert strike(Fault.TRUNCATED_JSON, stream=True).body[-1:] != b"\n"


@pytest.mark.parametrize(("fault", "bad"), [(Fault.MALFORMED_SSE, b"{not json"), (Fault.INVALID_UTF8, b"\xff\xc0\xaf")])
def test_one_bad_event_in_a_good_stream(fault: Fault, bad: bytes) -> None:
    """The stream goes on after it to its proper end."""
    answer = strike(fault, stream=True)
    assert [bad in event for event in answer.events].count(True) == 1
    assert answer.events[-1] == b"[DONE]"


def test_streams_without_their_parts() -> None:
    """No events, no content, no [DONE], no finish reason, and one event twice."""
    assert strike(Fault.EMPTY_STREAM, stream=True).events == [b"[DONE]"]
    assert strike(Fault.EMPTY_STREAM, stream=False).json()["choices"] == []
    empty = [json.loads(event) for event in strike(Fault.EMPTY_STOP, stream=True).events[:-1]]
    assert [event["choices"][0]["finish_reason"] for event in empty] == [None, "stop"]
    undone = strike(Fault.MISSING_DONE, stream=True).events
    assert json.loads(undone[-1])["choices"][0]["finish_reason"] == "stop"
    unfinished = strike(Fault.MISSING_FINISH, stream=True)
    assert unfinished.text == TEXT
    assert all(json.loads(event)["choices"][0]["finish_reason"] is None for event in unfinished.events)
    twice = strike(Fault.DUPLICATE_CHUNK, stream=True).events
    assert len(twice) == len(set(twice)) + 1


def test_a_huge_event_is_one_event() -> None:
    """All of the content stands in one event of two mebibytes, or of the size asked for."""
    sizes = [len(event) for event in strike(Fault.HUGE_EVENT, stream=True).events]
    assert len(sizes) == 4  # role, content, finish, [DONE]
    assert abs(sizes[1] - 2 * MIB) < 1000
    with FlakyProvider(Fault.HUGE_EVENT, size_bytes=10_000) as provider:
        assert abs(len(ask_raw(provider, chat()).body) - 10_000) < 1000


def test_faults_work_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where uvloop is missing, asyncio's own loop plays the same: resets, closes, stalls and floods."""
    monkeypatch.setattr(server, "_new_loop", asyncio.new_event_loop)
    for fault in (Fault.RESET_MID_BODY, Fault.CLOSE_MID_STREAM, Fault.STALL_BETWEEN_TOKENS, Fault.EARLY_CLOSE):
        answer = strike(fault, stream=True, timeout_s=SILENCE_S)
        assert answer.end is ENDS.get(fault, (End.WHOLE, End.WHOLE))[1]
        assert answer.text.startswith("one two three ")
    with FlakyProvider(Fault.HEADER_FLOOD) as provider:
        assert ask_raw(provider, chat(), timeout_s=0.02).end is End.SILENT
        asyncio.run(eventually(lambda: len(provider.disconnects) == 1, "the client has left"))


def test_faults_work_with_several_choices_and_short_answers() -> None:
    """A stream of one word, or of several choices, is struck all the same."""
    with FlakyProvider(Fault.RESET_MID_BODY) as provider:
        assert ask_raw(provider, chat("word", stream=True)).end is End.RESET
        several = ask_raw(provider, chat(stream=True, n=2))
    assert several.end is End.RESET
    assert len(several.chunks) == 5  # two roles, three tokens
