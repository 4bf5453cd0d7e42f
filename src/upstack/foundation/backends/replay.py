"""The replay backend: answers as recorded models did, in the wire format of an OpenAI-compatible provider.

An answer is found by its prompt (`core.traffic.prompt_key`) and the route's "provider/model". Where several rows hold
the same prompt, a model's answers to it take turns, in file order, and after them their `samples`; then the first
again. A request with `n` above 1 gets the first `n` of these as its choices, and takes no turn.
A row known only by its loss answers with empty content and its recorded tokens; a sample counts its answer's tokens.

A request's `tools`, sampling settings and `response_format` are accepted and change nothing.
The index keeps, for every answer and sample, one `bytes` object; prompts are kept as digests only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from upstack.core.clock import Clock, SystemClock
from upstack.core.errors import ConfigError
from upstack.core.traffic import RecordedAnswer, TrafficRow, prompt_key, read_traffic
from upstack.core.types import Provider, Request, Target
from upstack.foundation.backends.base import Call, Receiver
from upstack.foundation.backends.given import EVENTS, JSON, Frame, Given, GivenCall

_MOST_CHOICES = 128  # of one answer, as providers have it


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
        self._calls: set[GivenCall] = set()
        self._numbers = itertools.count(1)
        self._decoder = msgspec.msgpack.Decoder(Given)
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
            return self._start(receiver, 0.0, found.status, JSON, iter((found.body,)))
        frame = Frame(f"chatcmpl-replay-{next(self._numbers)}", model, int(self._clock.time()))
        wants_logprobs = bytes(request.fields.get("logprobs", b"")).strip() == b"true"
        delay = found[0].latency_s / self._speed if self._speed else 0.0
        if request.stream:
            return self._start(receiver, delay, 200, EVENTS, frame.events(found, logprobs=wants_logprobs))
        return self._start(receiver, delay, 200, JSON, iter((frame.completion(found, logprobs=wants_logprobs),)))

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

    def _find(self, name: str, request: Request) -> list[Given] | _Refusal:
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
        call = GivenCall(receiver, status, headers, body, self._calls.discard)
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


def _pack(answer: RecordedAnswer) -> Given:
    return Given(
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
