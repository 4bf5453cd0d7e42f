"""Opening a connection: DNS, TCP, the proxy's tunnel, TLS. The only part of the client that is awaited."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any, TypeVar, cast

from upstack.core.errors import Failure, SupplyError
from upstack.foundation.upstream.origin import Origin, Proxy
from upstack.foundation.upstream.tls import Contexts

_STAGGER = 0.25  # seconds one address may take before the next is tried beside it (RFC 8305)
_TUNNEL_HEAD_LIMIT = 65_536

_P = TypeVar("_P", bound=asyncio.Protocol)
_Task = asyncio.Task[tuple[asyncio.Transport, _P]]


async def connect(origin: Origin, contexts: Contexts, factory: Callable[[], _P]) -> _P:
    """Open one connection and give its protocol; raises `SupplyError`. The caller sets the time limit."""
    context = await contexts.load(origin.tls) if origin.scheme == "https" else None
    try:
        if context is None:
            return (await _dial(origin.proxy or origin, factory))[1]
        if origin.proxy is None:
            transport, still = await _dial(origin, _Still)
            if still.spoke:
                transport.abort()
                raise ValueError("it does not speak TLS")
        else:
            transport = await _tunnel(origin, origin.proxy)
        return await _secure(transport, factory(), context, origin.host)
    except (OSError, ValueError) as error:  # ValueError: a name that no DNS could hold
        failure = Failure.CONNECT_TIMEOUT if isinstance(error, TimeoutError) else Failure.REFUSED
        raise SupplyError(failure, f"{_step(origin, error)}: {_reason(error)}") from error


class _ProxyError(OSError):
    """The proxy was not reached, or did not open the tunnel."""


class _Still(asyncio.Protocol):
    """Holds a transport until TLS starts on it. The other side should be silent; if it is not, that is remembered."""

    def __init__(self) -> None:
        self.spoke = False

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio's signature
        self.spoke = True

    def eof_received(self) -> bool:
        return True  # stay open: TLS meets the end again and can say what it means


async def _secure(transport: asyncio.Transport, protocol: _P, context: ssl.SSLContext, host: str) -> _P:
    loop = asyncio.get_running_loop()
    try:
        if transport.is_closing():  # uvloop would wait for ever
            raise ConnectionResetError
        secured = await loop.start_tls(transport, protocol, context, server_hostname=host)
    except BaseException:
        transport.abort()
        raise
    if secured is None:  # closed the moment it was ready
        raise ConnectionResetError
    protocol.connection_made(secured)
    return protocol


async def _dial(via: Origin | Proxy, factory: Callable[[], _P]) -> tuple[asyncio.Transport, _P]:
    """Connect to the first address that answers: they are tried one after another, a little apart, side by side."""
    loop = asyncio.get_running_loop()
    addresses = deque(_interleaved(await loop.getaddrinfo(via.host, via.port, type=socket.SOCK_STREAM)))
    running: set[_Task[_P]] = set()
    error: BaseException = OSError("no address")
    try:
        while addresses or running:
            if addresses:
                running.add(asyncio.create_task(loop.create_connection(factory, addresses.popleft(), via.port)))
            wait = _STAGGER if addresses else None
            done, _ = await asyncio.wait(running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.discard(task)
                failed = task.exception()
                if failed is None:
                    return task.result()
                error = failed
        raise error
    finally:
        for task in running:
            task.add_done_callback(_abandon)
            task.cancel()


def _interleaved(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """Order addresses so that families take turns: where IPv6 leads nowhere, IPv4 is the second try, not the last."""
    families: dict[int, dict[str, None]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, {})[address[0]] = None
    return [address for address in chain.from_iterable(zip_longest(*families.values())) if address is not None]


def _abandon(task: _Task[_P]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result()[0].abort()


class _Tunnel(asyncio.Protocol):
    """Collects a proxy's answer to CONNECT, then reads no more; `answer` is empty where it closed instead."""

    def __init__(self) -> None:
        self._head = b""
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if not self.answer.done() and (b"\r\n\r\n" in self._head or len(self._head) > _TUNNEL_HEAD_LIMIT):
            self._transport.pause_reading()
            self.answer.set_result(self._head)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if not self.answer.done():
            self.answer.set_result(b"")


async def _tunnel(origin: Origin, proxy: Proxy) -> asyncio.Transport:
    try:
        transport, tunnel = await _dial(proxy, _Tunnel)
    except OSError as error:
        raise _ProxyError(_reason(error)) from error
    lines = [f"CONNECT {origin.where} HTTP/1.1", f"host: {origin.where}"]
    if proxy.authorization is not None:
        lines.append(f"proxy-authorization: {proxy.authorization}")
    try:
        transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        _check_tunnel(await tunnel.answer)
    except BaseException:
        transport.abort()
        raise
    return transport


def _check_tunnel(head: bytes) -> None:
    """Accept a 2xx answer and nothing after it: the other side has nothing to say before TLS starts."""
    if not head:
        reason = "closed the connection instead of opening a tunnel"
        raise _ProxyError(reason)
    status = head[9:12].decode("latin-1")
    if not head.startswith(b"HTTP/1.") or b"\r\n\r\n" not in head:
        reason = "answered CONNECT with something else than HTTP"
        raise _ProxyError(reason)
    if not (status.isdigit() and status.startswith("2")):
        reason = f"refused the tunnel with status {status}"
        raise _ProxyError(reason)
    if not head.endswith(b"\r\n\r\n") or head.count(b"\r\n\r\n") > 1:
        reason = "sent bytes after its head, where TLS should start"
        raise _ProxyError(reason)


def _step(origin: Origin, error: Exception) -> str:
    proxy = origin.proxy
    if proxy is not None and (isinstance(error, _ProxyError) or origin.scheme == "http"):
        return f"{origin.where}, by proxy {proxy.where}"
    return origin.where


def _reason(error: Exception) -> str:
    """Say in a few words why no connection came about; never with anything of the request in it."""
    if isinstance(error, _ProxyError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or 'handshake broken off'}"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else "the connection was closed at once"
    if isinstance(error, UnicodeError):
        return "not a host name"
    return str(error)
