"""Recorded traffic: requests with the answers several models gave them, one JSON object a line (`.jsonl`, `.jsonl.gz`).

    {"id", "task", "messages": [...], "truth"?, "answers": {"provider/model": {"content", "input_tokens",
     "output_tokens", "latency_s"?, "loss"?, "logprobs"?, "samples"?, "finish_reason"?}},
     "time"?, "subject"?, "rights"?, "tools"?}

`?` marks what may be missing or null. Members not named here are ignored, and are lost when rows are written again.
Reading streams: a file of any size needs the memory of its longest line.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from upstack.core.errors import ConfigError
from upstack.core.mistakes import in_words, split

MAX_LINE_BYTES = 64 * 1024 * 1024
_MAX_TOKENS = 10**9  # of one answer: keeps any price times any count within 64 bits
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ROUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*/\S+")


class RecordedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one model answered. Raises ValueError for tokens, seconds or a loss out of their ranges."""

    content: str | None  # null or empty where only the loss is known
    input_tokens: int
    output_tokens: int
    latency_s: float | None = None  # from request to the answer's end
    loss: float | None = None  # 0 (as good as can be) to 1
    logprobs: dict[str, Any] | None = None  # as in a chat completion's choice: {"content": [{"token", "logprob", ...}]}
    samples: tuple[str, ...] | None = None  # contents of repeated answers of the same model
    finish_reason: str | None = None

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        for name, count in (("input_tokens", self.input_tokens), ("output_tokens", self.output_tokens)):
            if not 0 <= count <= _MAX_TOKENS:
                raise ValueError(f"`{name}` is {count}; tokens lie in 0 to {_MAX_TOKENS:,}")
        if self.loss is not None and not 0 <= self.loss <= 1:
            raise ValueError(f"`loss` is {self.loss}; a loss lies in 0 to 1")
        if self.latency_s is not None and not 0 <= self.latency_s < float("inf"):
            raise ValueError(f"`latency_s` is {self.latency_s}; seconds are finite and not negative")


class TrafficRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request and its recorded answers. `answers` may be empty (a row with the truth alone, to learn from).

    Raises ValueError for no messages or an answer not under "provider/model", TypeError for a message without a role.
    """

    id: str
    task: str
    messages: tuple[dict[str, Any], ...]  # as in a chat completion request
    answers: dict[str, RecordedAnswer]  # by "provider/model"
    truth: Any = None
    time: float | None = None  # Unix seconds
    subject: str | None = None  # the person the row is about
    rights: dict[str, Any] | str | None = None
    tools: tuple[dict[str, Any], ...] | None = None

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        if not self.messages:
            raise ValueError("`messages` is empty; a request has at least one")
        for number, message in enumerate(self.messages):
            if not isinstance(message.get("role"), str):
                raise TypeError(f"`messages[{number}]` has no `role`")
        for name in self.answers:
            if _ROUTE.fullmatch(name) is None:
                raise ValueError(f'`answers` holds {name[:200]!r}; answers are named "provider/model"')


def read_traffic(path: Path | str) -> Iterator[TrafficRow]:
    """Yield the rows of `path` (gzip where it ends in `.gz`) in file order; blank lines are passed over.

    Raises ConfigError that names the file and the line, and shows none of its content, as iteration gets there.
    """
    decoder = msgspec.json.Decoder(TrafficRow)
    number = 0
    try:
        with _open(Path(path)) as lines:
            while line := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                if len(line) > MAX_LINE_BYTES:
                    raise ConfigError(f"{path}, line {number}: longer than {MAX_LINE_BYTES // 2**20} MB")
                if not line.isspace():
                    yield _decode(decoder, line, f"{path}, line {number}")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path}: broken gzip after line {number}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None


def write_traffic(path: Path | str, rows: Iterable[TrafficRow]) -> int:
    """Write `rows` to `path` (gzip where it ends in `.gz`), replacing it whole or not at all; return how many.

    The same rows give the same bytes. Raises ConfigError where the file cannot be written; what `rows` raises
    passes through, and `path` is as it was.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            count = _write_rows(file, rows, zipped=path.suffix == ".gz")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return count


def prompt_key(messages: Sequence[Any]) -> bytes:
    """Return 16 bytes that are equal for prompts that say the same: what a recording is looked up by.

    They are made of each message's role, its text (parts joined, runs of white space folded), a digest of every
    part that is not text (images) and what its tool calls call. Names, call ids and all else are left out.
    Raises TypeError for a message that is not an object, ValueError or RecursionError for what JSON cannot hold.
    """
    canonical = msgspec.json.encode([_canonical(message) for message in messages])
    return hashlib.blake2b(canonical, digest_size=16).digest()


def prompt_of(row: TrafficRow) -> str:
    """What a request says, all its messages together."""
    return text_of(row.messages)


def text_of(messages: Iterable[Any]) -> str:
    """The texts of messages, all together."""
    return "\n".join(_text(message.get("content")) for message in messages if isinstance(message, dict))


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")


def _decode(decoder: msgspec.json.Decoder[TrafficRow], line: bytes, where: str) -> TrafficRow:
    try:
        return decoder.decode(line)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {_explain(str(error), line)}; docs/traffic.md describes the format") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 at byte {error.start}") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"{where}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply") from None


def _explain(message: str, line: bytes) -> str:
    """Say where and what, and whose answer is at fault, where msgspec says only that one is."""
    path, said = split(message)
    if path.startswith("answers[...]"):
        # A second fault, further on in the line, may keep it from being read again.
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            for name, answer in msgspec.json.decode(line)["answers"].items():
                try:
                    msgspec.convert(answer, RecordedAnswer)
                except msgspec.ValidationError as error:
                    inner, said = split(str(error))
                    return in_words(f"answers[{name[:200]!r}]{inner and '.'}{inner}", said)
    return in_words(path, said)


def _write_rows(file: IO[bytes], rows: Iterable[TrafficRow], *, zipped: bool) -> int:
    # No name and no time in the gzip header: the same rows are to give the same bytes.
    sink = gzip.GzipFile("", "wb", 6, file, mtime=0) if zipped else file
    encoder = msgspec.json.Encoder()
    count = 0
    for row in rows:
        sink.write(encoder.encode(row) + b"\n")
        count += 1
    if zipped:
        sink.close()
    file.flush()
    os.fsync(file.fileno())
    return count


def _canonical(message: Any) -> list[Any]:
    """Reduce a message to [role, text, digests of other parts, tool calls]."""
    if not isinstance(message, dict):
        raise TypeError("a message is an object")
    content = message.get("content")
    texts: list[str] = []
    others: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif part is not None:
            others.append(hashlib.blake2b(msgspec.json.encode(part, order="sorted"), digest_size=16).hexdigest())
    calls = message.get("tool_calls")
    called = [_canonical_call(call) for call in calls] if isinstance(calls, list) else []
    return [message.get("role"), " ".join(" ".join(texts).split()), others, called]


def _canonical_call(call: Any) -> Any:
    """Reduce a tool call to [name, arguments], the arguments with sorted keys and no white space."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return None
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        with suppress(msgspec.DecodeError):
            arguments = msgspec.json.encode(msgspec.json.decode(arguments), order="sorted").decode()
    return [function.get("name"), arguments]
