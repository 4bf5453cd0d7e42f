"""The ordinary application on the gateway's port: everything but the hot path, and the hot path under plain ASGI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upstack.application.gateway.auth import CALLER, Caller, caller_of, may_see
from upstack.application.gateway.dialects.chat import error_body
from upstack.application.gateway.exchange import Exchange
from upstack.application.gateway.explain import explain, maturity_of
from upstack.application.gateway.exposition import CONTENT_TYPE, exposition
from upstack.application.gateway.feedback import Feedback
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.head import admit, admit_chat, too_large
from upstack.application.gateway.together import Together
from upstack.core.errors import RequestError, UpstackError
from upstack.core.store.outcomes import outcomes_of

ADMIN_HEADER = "x-upstack-admin"  # a browser cannot send it across origins without asking first
Reload = Callable[[], Awaitable[int]]


def build_app(gateway: Gateway, reload: Reload, together: Together | None = None) -> Starlette:
    """Assemble the application; `reload` swaps the configuration and returns its generation.

    `together`: the other workers, where there are any.
    """

    async def models(request: HttpRequest) -> Response:
        caller = caller_of(request)
        rows = [
            {"id": name, "object": "model", "created": 0, "owned_by": _owner(gateway, name)}
            for name in gateway.listed()
            if caller is None or caller.allowed is None or name in caller.allowed
        ]
        return _json({"object": "list", "data": rows})

    async def receipt(request: HttpRequest) -> Response:
        receipt_id = request.path_params["id"]
        off = gateway.receipts == "off"
        found = await gateway.ledger.get(receipt_id) if len(receipt_id) <= 64 and not off else None
        if found is None or not may_see(caller_of(request), found.key):
            why = ': server.receipts is "off"' if off else ""
            raise RequestError(f"There is no such receipt{why}", status=404, code="receipt_not_found")
        told = await asyncio.to_thread(outcomes_of, gateway.ledger.place, found, gateway.ledger.keystore)
        return _json(explain(found, told, maturity_of(gateway.config, found), gateway.clock.time()))

    feedback = Feedback(gateway)

    async def tell(request: HttpRequest) -> Response:
        return _json(*await feedback.take(request))

    async def healthz(_: HttpRequest) -> Response:
        return _json({"status": "alive"})

    async def readyz(_: HttpRequest) -> Response:
        reasons = [
            reason
            for reason, holds in (
                ("draining", gateway.draining),
                ("the ledger does not keep up", gateway.receipts == "required" and gateway.ledger.busy),
                ("the ledger's writer is being replaced", gateway.receipts == "required" and not gateway.ledger.ready),
                (gateway.ledger.failing, gateway.receipts == "required" and gateway.ledger.failing is not None),
            )
            if holds
        ]
        return _json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def metrics(_: HttpRequest) -> Response:
        page = exposition(gateway) if together is None else together.metrics()
        return Response(page, media_type=CONTENT_TYPE)

    async def health(_: HttpRequest) -> Response:
        return _json(routes_health(gateway, together))

    async def do_reload(request: HttpRequest) -> Response:
        if ADMIN_HEADER not in request.headers:
            raise RequestError(f"Send the header {ADMIN_HEADER}: 1", status=403, code="admin_header_missing")
        return _json({"reloaded": True, "generation": await reload()})

    logging.getLogger("uvicorn.error").addFilter(_is_news)
    chat = _ChatEndpoint(gateway)
    return Starlette(
        routes=[
            Path("/v1/chat/completions", chat, methods=["POST"]),
            Path("/v1/models", models),
            Path("/v1/receipts/{id}", receipt),
            Path("/v1/feedback", tell, methods=["POST"]),
            Path("/healthz", healthz),
            Path("/readyz", readyz),
            Path("/metrics", metrics),
            Path("/admin/health", health),
            Path("/admin/reload", do_reload, methods=["POST"]),
        ],
        middleware=[Middleware(_Door, gateway=gateway)],
        exception_handlers={HTTPException: _http_error, UpstackError: _own_error, Exception: _any_error},
    )


def routes_health(gateway: Gateway, together: Together | None = None) -> dict[str, object]:
    """What is known of every target: answers, failures, rest. The failure rate is this worker's."""
    now = gateway.clock.monotonic()
    found: dict[str, object] = {}
    for key, record in sorted(gateway.health.targets.items()):
        totals = None if together is None else together.totals(key)
        answered, failed, first_byte = totals or (record.answered, record.failed, record.first_byte_s)
        found[key] = {
            "answered": answered,
            "failed": failed,
            "failure_rate": round(record.failure_rate, 3),
            "first_byte_s": round(first_byte, 6),
            "rests_s": max(0.0, round(gateway.health.resting.get(key, now) - now, 1)),
        }
    return found


_OPEN = frozenset({"/healthz", "/readyz"})  # for whoever watches that the process lives
_ADMIN = ("/admin/", "/metrics")


class _Door:
    """Turns away callers that no endpoint serves, and those whose key is not for what they ask."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            try:
                scope[CALLER] = self._admit(scope)
            except RequestError as error:
                app = _error(error)
        await app(scope, receive, send)

    def _admit(self, scope: Scope) -> Caller | None:
        gateway, path = self._gateway, scope["path"]
        headers = {name.lower(): value for name, value in scope["headers"]}
        if path in _OPEN and gateway.keys is not None:
            return None
        caller = admit(headers, gateway.keys, gateway.clock.time())
        if caller is not None and caller.role != "admin" and path.startswith(_ADMIN):
            message = "This needs a key with the role admin: upstack keys new NAME --role admin"
            raise RequestError(message, status=403, code="key_not_allowed")
        return caller


class _ChatEndpoint:
    """Chat completions for any ASGI server; the same exchange, another sink."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        sink = _AsgiSink()
        exchange = sink.exchange = Exchange(gateway, sink, scope[CALLER])
        headers = {name.lower(): value for name, value in scope["headers"]}
        limit = gateway.limits.max_body_bytes
        try:
            admit_chat(headers, gateway.keys, gateway.clock.time(), limit)
            body = await _read_body(receive, limit)
        except _GoneError:
            return
        except RequestError as error:
            exchange.refuse(error)
        else:
            exchange.begin(body, headers)
        left = asyncio.ensure_future(_until_gone(receive))
        left.add_done_callback(lambda _: sink.leave())
        try:
            await sink.drain_to(send)
        finally:
            left.cancel()
            exchange.gone()
            sink.exchange = None  # else the two would keep the body until a collection


async def _read_body(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
        if size > limit:
            raise too_large(limit)
        if not message.get("more_body", False):
            return b"".join(pieces)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _AsgiSink:
    """Turns an exchange's calls into ASGI messages; pauses it while more than a little waits to be sent."""

    exchange: Exchange | None

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._waiting = 0  # bytes

    @property
    def paused(self) -> bool:
        return self._waiting > _QUEUED

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        self._start(status, headers + b"content-length: %d\r\n" % len(body))
        self._messages.put_nowait({"type": "http.response.body", "body": body})

    def open(self, headers: bytes, data: bytes) -> None:
        self._start(200, headers)
        self.write(data)

    def write(self, data: bytes) -> None:
        self._waiting += len(data)
        self._messages.put_nowait({"type": "http.response.body", "body": data, "more_body": True})
        if self.paused and self.exchange is not None:
            self.exchange.pause()

    def close(self, data: bytes, *, clean: bool) -> None:
        self.write(data)
        self._messages.put_nowait({"type": "http.response.body", "body": b""} if clean else None)

    def leave(self) -> None:
        """The caller has gone: nothing is sent any more."""
        self._messages.put_nowait(_LEFT)

    async def drain_to(self, send: Send) -> None:
        while True:
            message = await self._messages.get()
            if message is None:  # ASGI breaks a connection by an error of the application
                raise _BrokenStreamError
            if message is _LEFT:
                return
            await send(message)
            if self._messages.empty():
                self._waiting = 0
                if self.exchange is not None:
                    self.exchange.resume()
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                return

    def _start(self, status: int, lines: bytes) -> None:
        pairs = [tuple(line.split(b": ", 1)) for line in lines.splitlines()]
        self._messages.put_nowait({"type": "http.response.start", "status": status, "headers": pairs})


_QUEUED = 64 * 1024  # bytes that may wait to be sent; one more piece of a stream may come on top
_LEFT: Message = {"type": "http.disconnect"}


class _GoneError(Exception):
    """The caller hung up before its request was whole."""


class _BrokenStreamError(Exception):
    """A stream was cut; its error event has been sent, and the connection must not end cleanly."""


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the server logs anything but our own way to break a connection."""
    return record.exc_info is None or record.exc_info[0] is not _BrokenStreamError


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _owner(gateway: Gateway, name: str) -> str:
    return "upstack" if name.startswith("task/") else gateway.state.routes[name].provider.name


def _error(error: UpstackError) -> Response:
    return Response(error_body(error), error.status, media_type="application/json")


async def _own_error(_: HttpRequest, error: Exception) -> Response:
    return _error(error if isinstance(error, UpstackError) else UpstackError("Internal error"))


async def _http_error(request: HttpRequest, error: Exception) -> Response:
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, str(error))
    message = f"{request.method} {request.url.path[:100]}: " + ("no such endpoint" if status == 404 else detail)
    response = _error(RequestError(message, status=status, code="not_found" if status == 404 else "invalid_request"))
    response.headers.update((error.headers or {}) if isinstance(error, HTTPException) else {})
    return response


async def _any_error(_: HttpRequest, __: Exception) -> Response:
    return _error(UpstackError("Internal error; the gateway's log says more"))
