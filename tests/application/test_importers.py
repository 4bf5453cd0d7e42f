"""Files of other systems as receipts: nothing twice, nothing lost, what is bad is named by its line."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.calling import COMMAND, call, environ
from tests.postgres import PostgresServer
from upstack.application.data.importers.source import import_file
from upstack.core.errors import RequestError
from upstack.core.store.outcomes import outcomes_of
from upstack.core.store.reading import list_receipts, read_receipt, spend_sums
from upstack.core.store.verify import verify
from upstack.core.types import Usage


def nothing(number: int, reason: str, line: bytes) -> None:
    """Keep no rejects."""


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger of each kind, empty."""
    if request.param == "sqlite":
        return str(tmp_path / "upstack.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_ledger()


def row(name: str, **changes: Any) -> bytes:
    """A row of traffic with the answers of two models."""
    answers = {
        "acme/large": {"content": "seal", "input_tokens": 30, "output_tokens": 2, "latency_s": 0.5},
        "acme/small": {"content": "", "input_tokens": 31, "output_tokens": 3, "loss": 1},
    }
    said = {"id": name, "task": "triage", "messages": [{"role": "user", "content": f"Pump {name}"}]}
    return json.dumps(said | {"truth": "seal", "time": 1_700_000_000.5, "answers": answers} | changes).encode() + b"\n"


def test_traffic_becomes_receipts_once(place: str, tmp_path: Path) -> None:
    """Tokens, times, where it came from, and sums of spend; the same file again, gzipped and renamed, adds nothing."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(row("1") + b"\n" + row("2", subject="driver 17", time=None))
    done = import_file(place, str(path), None, None, nothing)
    assert (done.format, done.lines, done.added, done.known, done.rejected) == ("traffic", 3, 4, 0, 0)
    assert done.timeless == 2
    packed = tmp_path / "other.jsonl.gz"
    packed.write_bytes(gzip.compress(row("2", subject="driver 17", time=None) + row("1") + row("1")))
    done = import_file(place, str(packed), None, None, nothing)
    assert (done.added, done.known) == (0, 6)
    found = {receipt.route: receipt for receipt in list_receipts(place, 2)}
    large, small = found["acme/large"], found["acme/small"]
    assert (large.created_at, large.duration_s, large.strategy) == (1_700_000_000.5, 0.5, "imported")
    assert large.why == "imported from rows.jsonl line 1 (traffic); not served by this gateway"
    assert (large.usage, large.cost_picodollars) == (Usage(30, 2), None)
    whole = read_receipt(place, large.id)
    assert whole is not None
    assert json.loads(whole.request or b"")["messages"] == [{"role": "user", "content": "Pump 1"}]
    assert json.loads(whole.answer or b"")["choices"][0]["message"]["content"] == "seal"
    without = read_receipt(place, small.id)
    assert without is not None
    assert without.answer is None
    (right,), (wrong,) = outcomes_of(place, whole), outcomes_of(place, without)
    assert (right.demonstration, right.value, right.source) == (b"seal", None, "imported:traffic")
    assert (wrong.demonstration, wrong.value) == (b"seal", 0.0)
    assert [line[:4] for line in spend_sums(place, ("task", "route"))] == [
        ("triage", "acme/large", 2, 2),
        ("triage", "acme/small", 2, 2),
    ]
    assert verify(place).found == 0


def test_pairs_of_openai_become_receipts(tmp_path: Path) -> None:
    """A batch's output, failed ones too, stored completions and examples of fine-tuning."""
    place = str(tmp_path / "upstack.db")
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    body: dict[str, Any] = {"id": "chatcmpl-1", "model": "gpt-4o", "created": 1_700_000_000, "usage": usage}
    body["choices"] = [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]
    failed = {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}
    asked: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    lines: list[Any] = [
        {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 200, "body": body}, "error": None},
        {"custom_id": "b", "body": asked, "response": {"status_code": 429, "body": failed}},
        {**body, "id": "chatcmpl-2", "object": "chat.completion", "messages": asked["messages"]},
        {"messages": [*asked["messages"], {"role": "assistant", "content": "hello"}]},
        {"request": asked, "response": {**body, "id": "chatcmpl-3"}},
        {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": asked},
        {"messages": [{"role": "user", "content": "no answer"}]},
        {"response": {"status_code": "x", "body": body}},
        {"response": {"status_code": 200, "body": {}}},
    ]
    path = tmp_path / "batch.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    done = import_file(place, str(path), None, "support", nothing)
    assert (done.format, done.added, [number for number, _ in done.rejects]) == ("openai-jsonl", 5, [6, 7, 8, 9])
    assert import_file(place, str(path), None, "support", nothing).known == 5
    found = list_receipts(place, 10)
    assert sorted((each.state, each.model, each.stream) for each in found) == [
        ("answered", "openai/gpt-4o", False),
        ("answered", "openai/gpt-4o", False),
        ("answered", "openai/gpt-4o", True),
        ("answered", "unknown/unknown", False),
        ("failed", "openai/gpt-4o", True),
    ]
    assert {each.usage for each in found if each.created_at} == {Usage(9, 3)}
    assert {(each.error, each.status) for each in found if each.state == "failed"} == {("rate_limit_exceeded", 429)}
    assert {each.task for each in found} == {"support"}


def test_bad_lines_are_named_and_the_rest_goes_in(tmp_path: Path) -> None:
    """Garbage, half a line, numbers that are none and nesting cost a reject each, which a file keeps."""
    bad = [
        b"\x00\xff\xfe\x80 garbage\n",
        row("3", time=1)[:40] + b"\n",
        row("4").replace(b"1700000000.5", b"NaN"),
        row("5").replace(b"Pump", b"\xff"),
        b'{"id":' + b"[" * 100_000 + b"\n",
        row("6", answers={"acme/large": {"content": "x", "input_tokens": -1, "output_tokens": 0}}),
        row("7", time=1e300),
        b"[]\n",
    ]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(row("1") + b"".join(bad) + row("2") + row("8")[:60])
    done = call("import", "rows.jsonl", "--rejects", "bad.txt", "--json", cwd=tmp_path)
    assert done.code == 0, done
    told = done.json
    assert (told["added"], told["rejected"], told["guessed"]) == (4, 9, True)
    assert [number for number, _ in told["rejects"]] == [*range(2, 10), 11]
    assert (tmp_path / "bad.txt").read_bytes().startswith(bad[0] + bad[1])
    assert verify(str(tmp_path / "upstack.db")).receipts == 4


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    """A file that is not there or tells no format; half a gzip gives what was whole."""
    place = str(tmp_path / "upstack.db")
    with pytest.raises(RequestError, match="no\\.jsonl: cannot be read"):
        import_file(place, str(tmp_path / "no.jsonl"), None, None, nothing)
    (tmp_path / "a.jsonl").write_text('{"hello": 1}\n')
    with pytest.raises(RequestError, match="say --format"):
        import_file(place, str(tmp_path / "a.jsonl"), None, None, nothing)
    packed = gzip.compress(b"".join(row(str(number)) for number in range(2000)))
    (tmp_path / "b.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    done = import_file(place, str(tmp_path / "b.jsonl.gz"), None, None, nothing)
    assert done.added > 100
    assert done.rejected >= 1


def test_killed_in_the_middle_and_again_it_is_whole(tmp_path: Path) -> None:
    """Nothing is lost and nothing is there twice."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(row(str(number)) for number in range(10_000)))
    process = subprocess.Popen([*COMMAND, "import", str(path)], cwd=tmp_path, env=environ())
    place = str(tmp_path / "upstack.db")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        wal = Path(f"{place}-wal")
        if wal.exists() and wal.stat().st_size > 1_000_000:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = verify(place)
    assert before.found == 0
    assert 0 < before.receipts < 20_000
    done = import_file(place, str(path), None, None, nothing)
    assert (done.known, done.added) == (before.receipts, 20_000 - before.receipts)
    assert verify(place).receipts == 20_000
    assert sum(line[1] for line in spend_sums(place, ("task",))) == 20_000


def imported(tmp_path: Path, *lines: Any) -> tuple[Any, list[Any]]:
    """Import lines twice, so that the second time adds nothing; the first result and the receipts, oldest first."""
    path, place = tmp_path / "lines.jsonl", str(tmp_path / "upstack.db")
    path.write_text("\n".join(map(json.dumps, lines)))
    done = import_file(place, str(path), None, None, nothing)
    assert import_file(place, str(path), None, None, nothing).added == 0
    found = [read_receipt(place, each.id) for each in reversed(list_receipts(place, 100))]
    assert verify(place).found == 0
    return done, found


def test_logs_of_litellm_become_receipts(tmp_path: Path) -> None:
    """Its payload and its spend logs; a cost of 0 is unknown unless its cache answered."""
    payload = {
        "id": "a", "call_type": "acompletion", "response_cost": 0.00125, "status": "success", "prompt_tokens": 10,
        "completion_tokens": 4, "startTime": 1_700_000_000.0, "endTime": 1_700_000_002.0, "stream": True,
        "completionStartTime": 1_700_000_000.5, "model": "gpt-4o", "custom_llm_provider": "openai", "end_user": "u",
        "messages": [{"role": "user", "content": "hi"}], "response": {"choices": [{"message": {"content": "ok"}}]},
    }  # fmt: skip
    log = {
        "request_id": "b", "call_type": "completion", "spend": 0, "startTime": "2023-11-14T22:13:21.000Z",
        "model": "anthropic/claude", "prompt_tokens": 1, "completion_tokens": 1, "cache_hit": "False",
    }  # fmt: skip
    hit = {**log, "request_id": "c", "cache_hit": "True", "startTime": "2023-11-14T22:13:22"}
    fault = {"error_code": "429", "error_class": "RateLimitError"}
    failed = {**payload, "id": "d", "status": "failure", "error_information": fault, "startTime": 1_700_000_003}
    done, (first, second, third, last) = imported(tmp_path, payload, log, hit, failed, {**log, "model": None})
    assert (done.format, done.added, done.rejects[0][0]) == ("litellm", 4, 5)
    assert (first.route, first.cost_picodollars, first.usage) == ("openai/gpt-4o", 1_250_000_000, Usage(10, 4))
    assert (first.stream, first.first_byte_s, first.duration_s, first.subject) == (True, 0.5, 2.0, "u")
    assert (second.route, second.cost_picodollars, second.created_at) == ("anthropic/claude", None, 1_700_000_001.0)
    assert third.cost_picodollars == 0
    assert (last.state, last.status, last.error, last.usage) == ("failed", 429, "RateLimitError", None)


def test_generations_of_langfuse_become_receipts(tmp_path: Path) -> None:
    """Alone, in a trace and in a page; spans are none."""
    generation = {
        "id": "a", "type": "GENERATION", "startTime": "2023-11-14T22:13:20.000Z", "endTime": "2023-11-14T22:13:23.000Z",
        "model": "gpt-4o", "input": [{"role": "user", "content": "hi"}],
        "output": {"role": "assistant", "content": "ok"},
        "usageDetails": {"input": 7, "output": 2, "total": 9}, "costDetails": {"input": 0.1, "total": 0.25},
        "level": "DEFAULT", "completionStartTime": "2023-11-14T22:13:21.000Z",
    }  # fmt: skip
    later = {**generation, "id": "b", "startTime": "2023-11-14T22:13:21.000Z", "level": "ERROR", "costDetails": {}}
    old = {"usage": {"input": 3, "output": 4}, "calculatedTotalCost": 0.5, "usageDetails": None, "costDetails": None}
    trace = {"id": "t", "userId": "driver 17", "observations": [later, {"id": "s", "type": "SPAN"}]}
    page = {"data": [{**generation, "id": "c", "startTime": "2023-11-14T22:13:22.000Z", **old}], "meta": {}}
    done, (first, second, last) = imported(tmp_path, generation, trace, page, {"type": "GENERATION"}, {"type": "x"})
    assert (done.format, done.added, [number for number, _ in done.rejects]) == ("langfuse", 3, [4, 5])
    assert (first.cost_picodollars, first.usage, first.first_byte_s) == (250_000_000_000, Usage(7, 2), 1.0)
    assert json.loads(first.answer)["choices"][0]["message"]["content"] == "ok"
    assert (second.state, second.subject, second.cost_picodollars) == ("failed", "driver 17", None)
    assert (last.usage, last.cost_picodollars) == (Usage(3, 4), 500_000_000_000)


def test_spans_of_otlp_become_receipts(tmp_path: Path) -> None:
    """With the conventions' old names and new ones; other spans are none."""

    def span(name: str, second: int, said: dict[str, Any], **more: Any) -> dict[str, Any]:
        attributes = [
            {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
            for key, value in said.items()
        ]
        start = str((1_700_000_000 + second) * 10**9)
        end = str((1_700_000_001 + second) * 10**9)
        times = {"startTimeUnixNano": start, "endTimeUnixNano": end}
        return {"traceId": "t", "spanId": name, "attributes": attributes, **times, **more}

    messages = json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}])
    new = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.input_tokens": 5}
    new |= {"gen_ai.usage.output_tokens": 6, "gen_ai.operation.name": "chat", "gen_ai.input.messages": messages}
    old = {"gen_ai.system": "anthropic", "gen_ai.request.model": "claude", "gen_ai.usage.prompt_tokens": 1}
    old |= {"gen_ai.usage.completion_tokens": 2, "error.type": "timeout"}
    spans = [span("a", 0, new), span("b", 1, old, status={"code": 2}), span("c", 2, {"http.method": "GET"})]
    batch = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    done, (first, last) = imported(tmp_path, batch, {"resourceSpans": [{"scopeSpans": 7}]}, {"resourceLogs": []})
    assert (done.format, done.added, [number for number, _ in done.rejects]) == ("otlp-json", 2, [2, 3])
    assert (first.route, first.usage, first.duration_s, first.cost_picodollars) == (
        "openai/gpt-4o",
        Usage(5, 6),
        1.0,
        None,
    )
    assert json.loads(first.request)["messages"] == [{"role": "user", "content": "hi"}]
    assert (last.state, last.error, last.model, last.usage) == ("failed", "timeout", "anthropic/claude", Usage(1, 2))
