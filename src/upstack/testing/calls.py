"""Targets, requests and a receiver for driving a backend by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from upstack.core.errors import SupplyError
from upstack.core.types import Provider, Request, Route, Target, Timeouts
from upstack.foundation.backends.base import Backend, Call

SECRET = "sk-fake-0123456789"  # noqa: S105  made up, and looked for where no secret may be


def make_target(
    base_url: str,
    *,
    model: str = "echo-1",
    timeouts: Timeouts | None = None,
    credential: int = 0,
    **provider: Any,
) -> Target:
    """Make a target of the provider at `base_url`, with a made-up bearer token; `provider` are its further fields."""
    fields: dict[str, Any] = {"headers": ((("authorization", f"Bearer {SECRET}"),),), **provider}
    made = Provider(name="fake", backend="openai", base_url=base_url, timeouts=timeouts or Timeouts(), **fields)
    route = Route(name=f"fake/{model}", provider=made, model=model, version="1")
    return Target(route=route, credential=credential, key=f"fake/{model}#{credential}")


def make_request(
    content: str = "one two three four five six",
    *,
    stream: bool = False,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    **fields: Any,
) -> Request:
    """Make a request of one user message; `fields` are further members of its body, a `msgspec.Raw` stays as it is."""
    members: dict[str, Any] = {"model": "echo-1", "messages": [{"role": "user", "content": content}]}
    if stream:
        members["stream"] = True
    members.update(fields)
    body = msgspec.json.encode(members)
    raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    usage = isinstance(fields.get("stream_options"), dict) and bool(fields["stream_options"].get("include_usage"))
    # Each Raw is copied: slices of `body` would keep it alive.
    kept = {name: msgspec.Raw(bytes(value)) for name, value in raw.items()}
    return Request(str(members["model"]), stream, usage, kept, body, headers)


class RecordingReceiver:
    """Keeps what it is told, and every breach of the receiver's contract in `breaches`.

    `on_call` is called with the callback's name after each callback: where tests cancel, pause or send again.
    """

    def __init__(self, on_call: Callable[[str], None] | None = None) -> None:
        self.on_call = on_call
        self.call: Call | None = None
        self.sending = False  # inside `Backend.send`
        self.cancelled = False
        self.calls: list[str] = []  # "head", "body", "end", "failure"
        self.breaches: list[str] = []
        self.status = 0
        self.headers: Mapping[bytes, bytes] = {}
        self.pieces: list[bytes] = []
        self.error: SupplyError | None = None
        self.over = asyncio.Event()

    def send(self, backend: Backend, target: Target, request: Request) -> Call:
        """Send a request with this receiver."""
        self.sending = True
        self.call = backend.send(target, request, self)
        self.sending = False
        return self.call

    def cancel(self) -> None:
        """Cancel the call; whatever comes afterwards is a breach."""
        assert self.call is not None
        self.cancelled = True
        self.call.cancel()

    async def wait(self, timeout_s: float = 5.0) -> None:
        """Wait for the end or failure; AssertionError where neither comes."""
        try:
            await asyncio.wait_for(self.over.wait(), timeout_s)
        except TimeoutError:
            raise AssertionError(f"neither end nor failure within {timeout_s} s; so far: {self.calls[:10]}") from None

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(self.pieces)

    @property
    def size(self) -> int:
        """Bytes of the body so far."""
        return sum(map(len, self.pieces))

    def on_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        """Take the head."""
        self._note("head", not self.calls)
        if any(type(name) is not bytes or name != name.lower() for name in headers):
            self.breaches.append(f"header names are not lower-case bytes: {list(headers)}")
        self.status, self.headers = status, headers
        self._tell("head")

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._note("body", "head" in self.calls)
        if type(data) is not bytes:
            self.breaches.append(f"on_body was given {type(data).__name__}")
        self.pieces.append(bytes(data))
        self._tell("body")

    def on_end(self) -> None:
        """Take the end."""
        self._note("end", "head" in self.calls)
        self.over.set()
        self._tell("end")

    def on_failure(self, error: SupplyError) -> None:
        """Take the failure."""
        self._note("failure", True)
        self.error = error
        self.over.set()
        self._tell("failure")

    def _note(self, name: str, in_order: bool) -> None:
        before = self.calls[-1] if self.calls else "nothing"
        if self.sending:
            self.breaches.append(f"on_{name} was called before send() had returned")
        if self.cancelled:
            self.breaches.append(f"on_{name} was called after cancel()")
        if self.over.is_set() or not in_order:
            self.breaches.append(f"on_{name} was called after {before}")
        self.calls.append(name)

    def _tell(self, name: str) -> None:
        if self.on_call is not None:
            self.on_call(name)


async def ask(backend: Backend, target: Target, request: Request, timeout_s: float = 5.0) -> RecordingReceiver:
    """Send a request and wait for its end or failure."""
    receiver = RecordingReceiver()
    receiver.send(backend, target, request)
    await receiver.wait(timeout_s)
    return receiver
