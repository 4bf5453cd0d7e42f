"""One request that is to fail: the good answer to it, in the pieces that faults cut."""

from __future__ import annotations

import functools
import random

import msgspec

from upstack.testing.answers import Answer, ChatRequest, completion, stream_parts
from upstack.testing.wire import DONE, EVENT_STREAM, JSON, LAST_CHUNK, STREAM_HEAD, chunk, chunks, head, response

SETTLE_S = 0.005  # so that the client has read what came before a reset, which may discard it


class Options(msgspec.Struct, frozen=True):
    """The numbers of a fault; those it does not know have no effect."""

    tokens_before: int
    retry_after_s: float
    pause_s: float | tuple[float, float]
    size_bytes: int | None


class Case:
    """A request, its good answer, and the fault's numbers."""

    def __init__(self, request: ChatRequest, answer: Answer, options: Options, rng: random.Random) -> None:
        self.request = request
        self.answer = answer
        self.options = options
        self.stream = bool(request.stream)
        self.rng = rng

    @functools.cached_property
    def body(self) -> bytes:
        """The whole body, without transfer coding."""
        return self.before + self.after

    @property
    def before(self) -> bytes:
        """What comes before the fault: half of a plain body; roles and some tokens of a stream."""
        return self._cut[0]

    @property
    def after(self) -> bytes:
        """What would come after it."""
        return self._cut[1]

    @functools.cached_property
    def events(self) -> tuple[list[bytes], list[bytes]]:
        """The events of a stream before and after the fault."""
        parts = stream_parts(self.answer, self.request)
        count = self.options.tokens_before
        after = [*parts.deltas[count:], *parts.finish, *parts.usage, DONE]
        return [*parts.opening, *parts.deltas[:count]], after

    @property
    def whole(self) -> bytes:
        """The good HTTP answer."""
        if self.stream:
            before, after = self.events
            return STREAM_HEAD + chunks(before) + chunks(after) + LAST_CHUNK
        return response(200, self.body)

    @property
    def head(self) -> bytes:
        """The good answer's status line and headers."""
        return STREAM_HEAD if self.stream else self.head_with(("content-length", str(len(self.body))))

    @property
    def start(self) -> bytes:
        """The good answer, cut where the fault strikes: between two chunks of a stream."""
        return self.head + (chunks(self.events[0]) if self.stream else self.before)

    @property
    def chunked_start(self) -> bytes:
        """The same, chunked in plain answers too."""
        if self.stream:
            return self.start
        return self.head_with(("transfer-encoding", "chunked")) + chunk(self.before)

    @property
    def next_piece(self) -> bytes:
        """What comes right after the fault: an event, or the rest of a plain body."""
        return self.events[1][0] if self.stream else self.after

    @property
    def pause_s(self) -> float:
        """The pause, drawn where it is a range."""
        pause = self.options.pause_s
        return self.rng.uniform(*pause) if isinstance(pause, tuple) else pause

    def head_with(self, *headers: tuple[str, str]) -> bytes:
        """Render the head of a 200 of the right content type with other framing."""
        return head(200, [("content-type", EVENT_STREAM if self.stream else JSON), *headers])

    @functools.cached_property
    def _cut(self) -> tuple[bytes, bytes]:
        if self.stream:
            before, after = self.events
            return b"".join(before), b"".join(after)
        body = completion(self.answer, self.request)
        middle = len(body) // 2
        return body[:middle], body[middle:]
