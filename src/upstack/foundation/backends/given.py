"""Answers that are there at once, in the wire format of an OpenAI-compatible provider, for backends that ask nobody."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from upstack.foundation.backends.base import Receiver

JSON = {b"content-type": b"application/json"}
EVENTS = {b"content-type": b"text/event-stream; charset=utf-8"}
_BURST = 16  # events handed over before the event loop gets its turn
# Four words, or 160 characters where there are no blanks; every character belongs to exactly one piece.
_PIECE = re.compile(r"(?:\S{1,40}\s*){1,4}|\s+")


class Given(msgspec.Struct, frozen=True, array_like=True):
    """An answer."""

    content: str
    input_tokens: int
    output_tokens: int
    latency_s: float
    finish_reason: str
    logprobs: bytes | None  # JSON


class Frame:
    """Writes answers as the choices of a chat completion, or as the events of a stream."""

    __slots__ = ("_created", "_id", "_model")

    def __init__(self, own_id: str, model: str, created: int) -> None:
        """`created`: Unix seconds."""
        self._id = own_id
        self._model = model
        self._created = created

    def completion(self, answers: list[Given], *, logprobs: bool) -> bytes:
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

    def events(self, answers: list[Given], *, logprobs: bool) -> Iterator[bytes]:
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


def _usage(answers: list[Given]) -> dict[str, int]:
    """The prompt once, and what every choice says."""
    asked, said = answers[0].input_tokens, sum(answer.output_tokens for answer in answers)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


class GivenCall:
    """Hands head and body to the receiver in bursts, from the event loop, unless paused or cancelled."""

    __slots__ = ("_body", "_done", "_handle", "_head", "_loop", "_paused", "_receiver", "unheard")

    def __init__(
        self,
        receiver: Receiver,
        status: int,
        headers: Mapping[bytes, bytes],
        body: Iterator[bytes],
        done: Callable[[GivenCall], None],
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
