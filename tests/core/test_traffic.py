from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstack.core import traffic
from upstack.core.errors import ConfigError
from upstack.core.traffic import RecordedAnswer, TrafficRow, prompt_key, read_traffic, write_traffic


def line(**changes: Any) -> dict[str, Any]:
    """One row as JSON has it."""
    row: dict[str, Any] = {
        "id": "r1",
        "task": "triage",
        "messages": [{"role": "user", "content": "the pump hums"}],
        "answers": {"acme/large": {"content": "mechanical", "input_tokens": 12, "output_tokens": 1}},
    }
    return row | changes


def answer(**changes: Any) -> dict[str, Any]:
    """The `answers` of a row whose second model's answer is changed."""
    plain = {"content": "x", "input_tokens": 1, "output_tokens": 1}
    return {"answers": {"acme/good": plain, "acme/bad": plain | changes}}


def write_lines(path: Path, *lines: bytes | dict[str, Any]) -> Path:
    """Write rows, or raw bytes, a line each."""
    path.write_bytes(b"\n".join(item if isinstance(item, bytes) else json.dumps(item).encode() for item in lines))
    return path


def read_error(path: Path) -> str:
    """Read `path` to its fault; return what is said."""
    with pytest.raises(ConfigError) as caught:
        list(read_traffic(path))
    return str(caught.value)


def test_every_member_of_the_format_is_read(tmp_path: Path) -> None:
    """A row with all members comes back as it was written, through plain text and through gzip."""
    full = line(
        truth={"trade": "mechanical"},
        time=1700000000.5,
        subject="customer-7",
        rights={"licence": "MIT"},
        tools=[{"type": "function", "function": {"name": "look"}}],
        answers={
            "acme/large": {
                "content": None,
                "input_tokens": 12,
                "output_tokens": 0,
                "latency_s": 0.25,
                "loss": 0.5,
                "logprobs": {"content": [{"token": "m", "logprob": -0.1}]},
                "samples": ["a", "b"],
                "finish_reason": "length",
            }
        },
    )
    rows = list(read_traffic(write_lines(tmp_path / "in.jsonl", full)))
    for name in ("out.jsonl", "out.jsonl.gz"):
        assert write_traffic(tmp_path / name, rows) == 1
        assert list(read_traffic(tmp_path / name)) == rows
    assert json.loads((tmp_path / "out.jsonl").read_bytes()) == full
    assert rows[0].answers["acme/large"].samples == ("a", "b")


def test_what_may_be_missing_may_be_missing_and_unknown_members_are_ignored(tmp_path: Path) -> None:
    """Optional members are absent or null; members the format does not name are lost, not fatal."""
    path = write_lines(tmp_path / "in.jsonl", line(truth=None, colour="red"), b"", b"  ", line(answers={}))
    first, second = read_traffic(path)
    assert first.truth is None
    assert first.answers["acme/large"].loss is None
    assert second.answers == {}
    assert not hasattr(first, "colour")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    """A file some editors made begins with a byte order mark and is read all the same."""
    assert list(read_traffic(write_lines(tmp_path / "in.jsonl", b"\xef\xbb\xbf" + json.dumps(line()).encode())))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (answer(loss=1.5), "answers['acme/bad']: `loss` is 1.5; a loss lies in 0 to 1"),
        (answer(loss=-0.1), "a loss lies in 0 to 1"),
        (answer(input_tokens=-1), "answers['acme/bad']: `input_tokens` is -1; tokens lie in 0 to 1,000,000,000"),
        (answer(output_tokens=10**30), "tokens lie in 0 to"),
        (answer(output_tokens="7"), "answers['acme/bad'].output_tokens: expected int, got str"),
        (answer(output_tokens=True), "expected int, got bool"),
        (answer(latency_s=-1), "`latency_s` is -1.0; seconds are finite and not negative"),
        (answer(content=7), "answers['acme/bad'].content: expected str or null, got int"),
        (answer(logprobs=[0.5]), "logprobs: expected object or null, got array"),
        (
            {"answers": {"acme/large": {"input_tokens": 1, "output_tokens": 1}}},
            "answers['acme/large'].content: missing",
        ),
        ({"answers": {"acme": {"content": "", "input_tokens": 1, "output_tokens": 1}}}, "answers are named"),
        ({"answers": {"/x": {"content": "", "input_tokens": 1, "output_tokens": 1}}}, "answers are named"),
        ({"messages": []}, "`messages` is empty; a request has at least one"),
        ({"messages": [{"role": "user"}, {"content": "x"}]}, "`messages[1]` has no `role`"),
        ({"messages": "hello"}, "messages: expected array, got str"),
        ({"id": 7}, "id: expected str, got int"),
        ({"time": "yesterday"}, "time: expected float or null, got str"),
    ],
)
def test_a_wrong_value_is_refused_by_file_line_and_name(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    """The error names the file, the line, the model and the member."""
    path = write_lines(tmp_path / "in.jsonl", line(), line(**changes))
    message = read_error(path)
    assert message.startswith(f"{path}, line 2: ")
    assert message.endswith("; docs/traffic.md describes the format")
    assert said in message


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "line 2: Input data was truncated"),
        (b"[]", "line 2: expected object, got array"),
        (b'{"id": NaN}', "line 2: JSON is malformed"),
        (b'{"id": "\xff"}', "line 2: not UTF-8 at byte"),
        (b'{"truth": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 2: nested too deeply"),
        (b'{"answers": {"a/b": {"content": 1', "line 2: answers[...].content: expected str or null, got int"),
        (b"{}", "line 2: id: missing"),
    ],
)
def test_what_is_not_a_row_is_refused_by_line(raw: bytes, said: str, tmp_path: Path) -> None:
    """Broken JSON, broken text and hostile nesting end in the one error, with the line's number."""
    assert said in read_error(write_lines(tmp_path / "in.jsonl", line(), raw))


def test_an_error_shows_nothing_of_the_content(tmp_path: Path) -> None:
    """Recorded prompts may be personal, so an error never quotes them."""
    secret = line(messages=[{"role": "user", "content": "my secret"}], time="my secret")
    assert "secret" not in read_error(write_lines(tmp_path / "in.jsonl", secret))


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder, and gzip cut short or not gzip at all are named errors too."""
    assert "no such file" in read_error(tmp_path / "none.jsonl")
    assert "cannot be read" in read_error(tmp_path)
    whole = gzip.compress(json.dumps(line()).encode() + b"\n" + b"\n".join([b" " * 100] * 10_000))
    for name, data in (("cut", whole[:-20]), ("none", b"plain text")):
        path = tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(data)
        assert f"{path}: broken gzip after line" in read_error(path)


def test_a_line_that_is_too_long_is_refused_before_it_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gzip file that unfolds into one endless line costs no more memory than the limit."""
    monkeypatch.setattr(traffic, "MAX_LINE_BYTES", 2**20)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 64 * 2**20))
    tracemalloc.start()
    assert "line 1: longer than 1 MB" in read_error(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


def test_reading_streams(tmp_path: Path) -> None:
    """The first rows are there before a fault further down is met."""
    rows = read_traffic(write_lines(tmp_path / "in.jsonl", line(), line(id="r2"), b"{"))
    assert [next(rows).id, next(rows).id] == ["r1", "r2"]
    with pytest.raises(ConfigError):
        next(rows)


def test_the_same_rows_give_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    """Gzip carries neither a time nor a file name, so a converted file can be compared by its digest."""
    rows = list(read_traffic(write_lines(tmp_path / "in.jsonl", line(), line(id="r2"))))
    write_traffic(tmp_path / "a.jsonl.gz", rows)
    write_traffic(tmp_path / "b.jsonl.gz", iter(rows))
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    """A file is replaced whole or not at all."""
    row = next(read_traffic(write_lines(tmp_path / "in.jsonl", line())))

    def failing() -> Iterator[TrafficRow]:
        yield row
        raise RuntimeError("the source broke")

    path = tmp_path / "out.jsonl.gz"
    write_traffic(path, [row])
    before = path.read_bytes()
    with pytest.raises(RuntimeError):
        write_traffic(path, failing())
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl.gz"]
    with pytest.raises(ConfigError, match="cannot be written"):
        write_traffic(tmp_path / "none" / "out.jsonl", [row])


def test_rows_made_in_code_are_checked_like_rows_read() -> None:
    """What could not be read back cannot be made."""
    with pytest.raises(ValueError, match="loss"):
        RecordedAnswer(content="", input_tokens=1, output_tokens=1, loss=2)
    with pytest.raises(ValueError, match="latency_s"):
        RecordedAnswer(content="", input_tokens=1, output_tokens=1, latency_s=float("nan"))
    with pytest.raises(ValueError, match="messages"):
        TrafficRow(id="r", task="t", messages=(), answers={})


def user(content: Any, **more: Any) -> list[dict[str, Any]]:
    """A prompt of one message."""
    return [{"role": "user", "content": content, **more}]


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
OTHER_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,BBBB"}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (user("a b"), user("  a\n\t b ")),
        (user("a b"), user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])),
        (user("a", name="Ann"), user("a", cache_control={"type": "ephemeral"})),
        (user([IMAGE]), user([dict(reversed(IMAGE.items()))])),
        (user(None), user("")),
    ],
)
def test_prompts_that_say_the_same_have_one_key(one: list[Any], other: list[Any]) -> None:
    """White space, the parts a text came in, names and the order of members do not matter."""
    assert prompt_key(one) == prompt_key(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (user("a"), user("A")),
        (user("a"), [{"role": "system", "content": "a"}]),
        (user("a b"), user("a") + user("b")),
        (user([IMAGE]), user([OTHER_IMAGE])),
        (user("a"), user([{"type": "text", "text": "a"}, IMAGE])),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}],
            [{"role": "assistant", "tool_calls": [{"function": {"name": "go", "arguments": "{}"}}]}],
        ),
    ],
)
def test_prompts_that_differ_have_different_keys(one: list[Any], other: list[Any]) -> None:
    """Role, text, number of messages, images and tool calls matter."""
    assert prompt_key(one) != prompt_key(other)


def test_a_tool_call_is_known_by_what_it_calls() -> None:
    """Call ids and the spacing of arguments change from run to run and do not matter."""
    one, other = (
        [{"role": "assistant", "tool_calls": [{"id": i, "function": {"name": "look", "arguments": text}}]}]
        for i, text in (("1", '{"a": 1, "b": 2}'), ("2", '{"b":2,"a":1}'))
    )
    assert prompt_key(one) == prompt_key(other)


MEMBERS = st.sampled_from(["role", "content", "tool_calls", "function", "arguments", "text", "type"])
TEXT = st.text('a {"\\\u00e9\u2003\n', max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(MEMBERS, JSON, max_size=5), max_size=3))
def test_any_json_has_a_key_or_a_named_fault(messages: list[Any]) -> None:
    """A hostile prompt ends in a key or in an error that the caller of `prompt_key` is told of."""
    with suppress(TypeError, ValueError):
        assert len(prompt_key(messages)) == 16
