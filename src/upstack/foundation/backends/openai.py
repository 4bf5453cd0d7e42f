"""The backend for every OpenAI-compatible URL: builds the request's bytes; the upstream client does the rest."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from upstack import __version__
from upstack.core.clock import Clock
from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Provider, Request, Target
from upstack.foundation.backends.base import Call, Receiver
from upstack.foundation.upstream.call import HttpCall
from upstack.foundation.upstream.client import Client
from upstack.foundation.upstream.origin import Origin
from upstack.foundation.upstream.pool import Limits, Pool

_MAX_HEADS = 4096  # callers may name any "provider/model", so nothing else bounds them
_PATH_SAFE: Final = "/%:@!$&'()*+,;=~"
# What a caller cannot set: what belongs to one hop, what says who calls, and what we say ourselves.
_OURS: Final = frozenset(
    (
        *(b"connection", b"expect", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade", b"authorization", b"cookie", b"host"),
        *(b"accept", b"accept-encoding", b"content-encoding", b"content-length", b"content-type", b"user-agent"),
    )
)
_NAME: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_TRUE: Final = msgspec.Raw(b"true")
_USAGE: Final = msgspec.Raw(b'{"include_usage":true}')

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class OpenAIBackend:
    """Sends chat completions to OpenAI-compatible providers over kept connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        clock: Clock | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Belong to `loop` (default: the running one). Timeouts go by `clock` (default: the loop's time).

        `environ` holds the proxy variables (default: those of the process); `limits` are those of each origin.
        """
        self._loop = loop or asyncio.get_running_loop()
        timer = None if clock is None else clock.monotonic
        self._client = Client(self._loop, clock=timer, environ=environ, limits=limits)
        self._heads: dict[str, _Head] = {}

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Start one attempt. Never raises for the provider's faults: those go to `receiver.on_failure`."""
        route = target.route
        known = self._heads.get(target.key)
        if known is None or known.provider is not route.provider or known.model != route.model:
            try:
                known = self._prepare(target)
            except SupplyError as error:
                call = HttpCall(set(), "", route.provider.timeouts, receiver, 0.0)
                call.link = None
                self._loop.call_soon(call.fail, error)
                return call
        fields = dict(request.fields)
        fields["model"] = known.model_json
        head = known.plain
        if request.stream:
            head = known.stream
            if known.provider.usage_in_stream and not request.wants_usage:
                fields["stream_options"] = _with_usage(fields.get("stream_options"))
        if request.headers:
            head += _allowed(request.headers, known.names)
        body = _encode(fields)
        head = b"%bcontent-length: %d\r\n\r\n" % (head, len(body))
        return known.pool.send(head, body, known.provider.timeouts, receiver)

    async def close(self) -> None:
        """Close idle connections; calls in flight are cancelled."""
        await self._client.close()

    def _prepare(self, target: Target) -> _Head:
        provider = target.route.provider
        # A provider is replaced whole on reload. What was made from the old one holds its secrets: away with it.
        for key, head in list(self._heads.items()):
            if head.provider.name == provider.name and head.provider is not provider:
                del self._heads[key]
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        pool = self._client.pool(provider.base_url, provider.tls)
        head = self._heads[target.key] = _Head(target, pool)
        return head


class _Head:
    """All of a target's requests that does not change from one to the next."""

    __slots__ = ("model", "model_json", "names", "plain", "pool", "provider", "stream")

    def __init__(self, target: Target, pool: Pool) -> None:
        """Write the heads of plain and streamed requests; raises `SupplyError` for an unusable credential."""
        self.provider = target.route.provider
        self.model = target.route.model
        self.model_json = msgspec.Raw(_encode(self.model))
        self.pool = pool
        credential = _credential(self.provider, target.credential)
        self.names = _OURS | {name.lower() for name, _ in credential}
        path = _path(self.provider, self.model)
        self.plain = _write(pool.origin, path, [*credential, (b"accept", b"application/json")])
        self.stream = _write(pool.origin, path, [*credential, (b"accept", b"text/event-stream")])


def _write(origin: Origin, path: str, headers: list[tuple[bytes, bytes]]) -> bytes:
    proxy = origin.forwarding_proxy
    if proxy is not None:
        path = f"http://{origin.host_header}{path}"
        if proxy.authorization is not None:
            headers = [*headers, (b"proxy-authorization", proxy.authorization.encode("ascii"))]
    lines = [
        (b"host", origin.host_header.encode("ascii")),
        *headers,
        (b"content-type", b"application/json"),
        (b"accept-encoding", b"identity"),
        (b"user-agent", b"upstack/" + __version__.encode("ascii")),
    ]
    return b"POST %b HTTP/1.1\r\n%b" % (path.encode("ascii"), _lines(lines))


def _path(provider: Provider, model: str) -> str:
    base = urlsplit(provider.base_url)
    path = (base.path.rstrip("/") + provider.chat_path).replace("{model}", quote(model, safe=""))
    query = "&".join(part for part in (base.query, urlencode(provider.query)) if part)
    return quote(path, safe=_PATH_SAFE) + (f"?{quote(query, safe=_PATH_SAFE + '?')}" if query else "")


def _credential(provider: Provider, index: int) -> list[tuple[bytes, bytes]]:
    try:
        headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in provider.headers[index]]
    except (IndexError, UnicodeEncodeError):
        headers = [(b"", b"")]
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            message = f"Provider {provider.name}: credential {index} cannot be sent; it is no header name and value"
            raise SupplyError(Failure.AUTH, message)
    return headers


def _allowed(headers: Iterable[tuple[bytes, bytes]], ours: frozenset[bytes]) -> bytes:
    """Write the caller's headers, less those that could change what the provider takes the request for."""
    fit = (name.lower() not in ours and _NAME.fullmatch(name) and _VALUE.fullmatch(value) for name, value in headers)
    return _lines(header for header, good in zip(headers, fit, strict=True) if good)


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _with_usage(options: msgspec.Raw | None) -> msgspec.Raw:
    """Ask for usage at the end of the stream, beside what else the caller asked for there."""
    if options is None:
        return _USAGE
    try:
        members = _members(options)
    except msgspec.DecodeError:  # null is as good as absent; anything else the provider itself should refuse
        return _USAGE if bytes(options).strip() == b"null" else options
    members["include_usage"] = _TRUE
    return msgspec.Raw(_encode(members))
