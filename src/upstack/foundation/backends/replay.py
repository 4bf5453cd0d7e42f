"""The replay backend: answers as recorded models did, in the wire format of an OpenAI-compatible provider.

An answer is found by its prompt (`core.traffic.prompt_key`) and the route's "provider/model". Where several rows hold
the same prompt, a model's answers to it take turns, in file order, and after them their `samples`; then the first
again. A request with `n` above 1 gets the first `n` of these as its choices, and takes no turn.
A row known only by its loss answers with empty content and its recorded tokens; a sample counts its answer's tokens.

A request's `tools`, sampling settings and `response_format` are accepted and change nothing.
The index keeps, for every answer and sample, one `bytes` object; prompts are kept as digests only.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from upstack.core.clock import Clock, SystemClock
from upstack.core.errors import ConfigError
from upstack.core.traffic import RecordedAnswer, TrafficRow, prompt_key, read_traffic
from upstack.core.types import Provider, Request, Target
from upstack.foundation.backends.base import Call, Receiver

_JSON = {b"content-type": b"application/json"}
_EVENTS = {b"content-type": b"text/event-stream; charset=utf-8"}
_MOST_CHOICES = 128  # of one answer, as providers have it
_BURST = 16  # events handed over before the event loop gets its turn
# Four words, or 160 characters where there are no blanks; every character belongs to exactly one piece.
_PIECE = re.compile(r"(?:\S{1,40}\s*){1,4}|\s+")


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """An answer as the index keeps it, in MessagePack."""

    content: str
    input_tokens: int
    output_tokens: int
    latency_s: float
    finish_reason: str
    logprobs: bytes | None  # JSON


class _Turns:
    """Several answers to one prompt, in the order they are given."""

    __slots__ = ("_next", "answers")

    def __init__(self, answers: list[bytes]) -> None:
        self.answers = answers
        self._next = itertools.cycle(answers).__next__

    def take(self, count: int) -> list[bytes]:
        """Give the next one, or the first `count` of them, from the first again after the last."""
        return [self._next()] if count == 1 else list(itertools.islice(itertools.cycle(self.answers), count))


class ReplayBackend:
    """A `Backend` over recorded traffic: a file's path, or rows.

    `speed` 0 answers at once, 1 after the recorded latency, 2 after half of it; a stream starts where the recorded
    answer ended. Raises ConfigError for a file that cannot be read, or holds no answer.
    """

    def __init__(
        self, source: Path | str | Iterable[TrafficRow], *, speed: float = 0.0, clock: Clock | None = None
    ) -> None:
        if not 0 <= speed < float("inf"):
            raise ConfigError(f"replay: speed is {speed}; 0 answers at once, 1 as fast as the recorded models did")
        self._speed = speed
        self._clock = clock or SystemClock()
        self._answers: dict[str, dict[bytes, bytes]] = {}
        self._turns: dict[tuple[str, bytes], _Turns] = {}  # of prompts with several answers
        self._calls: set[_ReplayCall] = set()
        self._numbers = itertools.count(1)
        self._decoder = msgspec.msgpack.Decoder(_Packed)
        self._index(read_traffic(source) if isinstance(source, (str, Path)) else source)
        if not self._answers:
            where = f"{source}: " if isinstance(source, (str, Path)) else ""
            raise ConfigError(f"{where}holds no recorded answers, so there is nothing to replay")

    @property
    def models(self) -> tuple[str, ...]:
        """Every recorded "provider/model", sorted."""
        return tuple(sorted(self._answers))

    def not_called(self, providers: Mapping[str, Provider]) -> str:
        """Say which of `providers` this stands in for: all of them, or their names."""
        others = sorted(name for name, provider in providers.items() if provider.backend != "replay")
        but = f" but {', '.join(others)}" if others else ""
        return f"no provider{but} is called"

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Answer as recorded, or with the provider's error: 404 for a model it has not, 400 for all else."""
        model = target.route.model
        found = self._find(f"{target.route.provider.name}/{model}", request)
        if isinstance(found, _Refusal):
            return self._start(receiver, 0.0, found.status, _JSON, iter((found.body,)))
        frame = _Frame(model, next(self._numbers), int(self._clock.time()))
        wants_logprobs = bytes(request.fields.get("logprobs", b"")).strip() == b"true"
        delay = found[0].latency_s / self._speed if self._speed else 0.0
        if request.stream:
            return self._start(receiver, delay, 200, _EVENTS, frame.events(found, logprobs=wants_logprobs))
        return self._start(receiver, delay, 200, _JSON, iter((frame.completion(found, logprobs=wants_logprobs),)))

    async def close(self) -> None:
        """Cancel the calls in flight."""
        for call in tuple(self._calls):
            call.cancel()

    def _index(self, rows: Iterable[TrafficRow]) -> None:
        encoder = msgspec.msgpack.Encoder()
        several: dict[tuple[str, bytes], list[bytes]] = {}
        samples: dict[tuple[str, bytes], list[bytes]] = {}
        for row in rows:
            if not row.answers:
                continue
            key = prompt_key(row.messages)
            for name, answer in row.answers.items():
                packed = encoder.encode(_pack(answer))
                first = self._answers.setdefault(name, {}).setdefault(key, packed)
                if first is not packed:
                    several.setdefault((name, key), [first]).append(packed)
                if answer.samples:
                    others = [
                        encoder.encode(_pack(replace(answer, content=text, logprobs=None))) for text in answer.samples
                    ]
                    several.setdefault((name, key), [first])
                    samples.setdefault((name, key), []).extend(others)
        # Samples come last: the answers that stand in the rows are those whose loss is known.
        self._turns = {place: _Turns(answers + samples.get(place, [])) for place, answers in several.items()}

    def _find(self, name: str, request: Request) -> list[_Packed] | _Refusal:
        try:
            key = prompt_key(msgspec.json.decode(request.fields["messages"], type=list[Any]))
        except (KeyError, TypeError, ValueError, RecursionError, msgspec.DecodeError):
            return _Refusal(400, "invalid_messages", "replay: `messages` is not a list of messages")
        answers = self._answers.get(name)
        if answers is None:
            known = ", ".join(self.models[:20]) + (", ..." if len(self._answers) > 20 else "")
            return _Refusal(404, "model_not_found", f"replay: no answers of {name} were recorded; there are: {known}")
        packed = answers.get(key)
        if packed is None:
            who = (
                "others have" if any(key in others for others in self._answers.values()) else "nor has any other model"
            )
            return _Refusal(400, "unknown_prompt", f"replay: {name} has no recorded answer to this prompt; {who}")
        count = _choices(request)
        if count is None:
            return _Refusal(400, "invalid_n", f"replay: `n` is a whole number from 1 to {_MOST_CHOICES}")
        turns = self._turns.get((name, key))
        taken = [packed] * count if turns is None else turns.take(count)
        return [self._decoder.decode(each) for each in taken]

    def _start(
        self, receiver: Receiver, delay: float, status: int, headers: Mapping[bytes, bytes], body: Iterator[bytes]
    ) -> Call:
        call = _ReplayCall(receiver, status, headers, body, self._calls.discard)
        self._calls.add(call)
        call.start(delay)
        return call


def replay_providers(backend: ReplayBackend) -> dict[str, Provider]:
    """Return a provider for every name before the slash in `backend.models`, by name."""
    names = {model.partition("/")[0] for model in backend.models}
    return {name: Provider(name=name, backend="replay", base_url="replay:") for name in sorted(names)}


def _choices(request: Request) -> int | None:
    """How many choices are asked for; None where that makes no sense."""
    raw = request.fields.get("n")
    try:
        count = None if raw is None else msgspec.json.decode(raw, type=int | None)
    except msgspec.DecodeError:
        return None
    return 1 if count is None else count if 1 <= count <= _MOST_CHOICES else None


def _pack(answer: RecordedAnswer) -> _Packed:
    return _Packed(
        content=answer.content or "",
        input_tokens=answer.input_tokens,
        output_tokens=answer.output_tokens,
        latency_s=answer.latency_s or 0.0,
        finish_reason=answer.finish_reason or "stop",
        logprobs=None if answer.logprobs is None else msgspec.json.encode(answer.logprobs),
    )


class _Refusal:
    """A provider's error in the OpenAI shape."""

    __slots__ = ("body", "status")

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        self.body = msgspec.json.encode({"error": error})


class _Frame:
    """Writes answers as the choices of a chat completion, or as the events of a stream."""

    __slots__ = ("_created", "_id", "_model")

    def __init__(self, model: str, number: int, created: int) -> None:
        self._id = f"chatcmpl-replay-{number}"
        self._model = model
        self._created = created

    def completion(self, answers: list[_Packed], *, logprobs: bool) -> bytes:
        """Return the body of a plain answer."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.content, "refusal": None},
                "logprobs": msgspec.Raw(answer.logprobs or b"null") if logprobs else None,
                "finish_reason": answer.finish_reason,
            }
            for index, answer in enumerate(answers)
        ]
        return self._object("chat.completion", choices, _usage(answers))

    def events(self, answers: list[_Packed], *, logprobs: bool) -> Iterator[bytes]:
        """Yield, for one choice after the other, role, content piece by piece and finish reason; usage; `[DONE]`.

        All log probabilities come with the first piece: recorded tokens need not be what the pieces are cut at.
        """
        for index, answer in enumerate(answers):
            yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
            scores = answer.logprobs if logprobs else None
            pieces: Iterable[str] = (piece.group() for piece in _PIECE.finditer(answer.content))
            if scores is not None and not answer.content:
                pieces = ("",)
            for piece in pieces:
                yield self._chunk(index, {"content": piece}, scores)
                scores = None
            yield self._chunk(index, {}, finish_reason=answer.finish_reason)
        yield b"data: " + self._object("chat.completion.chunk", [], _usage(answers)) + b"\n\n"
        yield b"data: [DONE]\n\n"

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: bytes | None = None, finish_reason: str | None = None
    ) -> bytes:
        scores = None if logprobs is None else msgspec.Raw(logprobs)
        choice = {"index": index, "delta": delta, "logprobs": scores, "finish_reason": finish_reason}
        return b"data: " + self._object("chat.completion.chunk", [choice], None) + b"\n\n"

    def _object(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> bytes:
        fields: dict[str, Any] = {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        if usage is not None:
            fields["usage"] = usage
        return msgspec.json.encode(fields)


def _usage(answers: list[_Packed]) -> dict[str, int]:
    """The prompt once, and what every choice says."""
    asked, said = answers[0].input_tokens, sum(answer.output_tokens for answer in answers)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


class _ReplayCall:
    """Hands head and body to the receiver in bursts, from the event loop, unless paused or cancelled."""

    __slots__ = ("_body", "_done", "_handle", "_head", "_loop", "_paused", "_receiver", "unheard")

    def __init__(
        self,
        receiver: Receiver,
        status: int,
        headers: Mapping[bytes, bytes],
        body: Iterator[bytes],
        done: Callable[[_ReplayCall], None],
    ) -> None:
        self._receiver: Receiver | None = receiver
        self._head: tuple[int, Mapping[bytes, bytes]] | None = (status, headers)
        self._body = body
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._paused = False
        self.unheard = False

    def start(self, delay: float) -> None:
        """Schedule the head, `delay` seconds from now."""
        self._handle = self._loop.call_later(delay, self._deliver) if delay else self._loop.call_soon(self._deliver)

    def cancel(self) -> None:
        """Stop at once; nothing more is delivered."""
        if self._receiver is not None:
            self._over()

    def pause(self) -> None:
        """Hold the answer back."""
        self._paused = True

    def resume(self) -> None:
        """Deliver on, from the event loop's next turn."""
        self._paused = False
        self._schedule()

    def _schedule(self) -> None:
        if self._handle is None and self._receiver is not None:
            self._handle = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._handle = None
        if self._head is not None and self._receiver is not None and not self._paused:
            head, self._head = self._head, None
            self._receiver.on_head(*head)
        # Every callback may cancel or pause this call, so both are looked at before the next.
        for _ in range(_BURST):
            receiver = self._receiver
            if receiver is None or self._paused:
                return
            data = next(self._body, None)
            if data is None:
                self._over()
                receiver.on_end()
                return
            receiver.on_body(data)
        self._schedule()

    def _over(self) -> None:
        self._receiver = None
        self._body = iter(())
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._done(self)
