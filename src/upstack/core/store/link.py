"""The writer, from the gateway: its own, started and ended with it, or one that several workers share."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import upstack
from upstack.core.errors import LedgerError
from upstack.core.store.frames import ALL_WRITTEN, LENGTH, Failures, decode_failures, decode_ready, frame
from upstack.core.store.places import shown

WRITER_DIED = "ledger_writer_died"  # the code of the error where a writer ended without a word

_START_S = 20.0  # beyond the wait for the lock
_END_S = 5.0
_DIED = "the ledger's writer ended before it was ready; its words on standard error say why"


class WriterLink(asyncio.Protocol):
    """A running writer. `on_answer` takes what became of the batch sent last, `on_lost` says that it died."""

    def __init__(self, on_answer: Callable[[Failures], None], on_lost: Callable[[], None]) -> None:
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._ready: asyncio.Future[str | int] | None = None
        self.chain: int | None = None  # that the writer has; it keeps it for life
        self._process: subprocess.Popen[bytes] | None = None  # None: somebody else's
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._started = False
        self._ended = False

    async def start(
        self,
        place: str,
        lock_wait: float,
        *,
        recover: bool,
        listener: int | None = None,
        keystore: str | None = None,
    ) -> None:
        """Start the process and wait until it is ready; LedgerError says why it cannot be.

        With the descriptor of a `listener` it serves those who connect there, until this link is closed and they left.
        """
        loop = asyncio.get_running_loop()
        ready = self._ready = loop.create_future()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = _spawn(theirs.fileno(), lock_wait, listener, recover=recover)
        try:
            await loop.create_unix_connection(lambda: self, sock=ours)
            self.send(frame((place, keystore)))
            reason = self._heard(await asyncio.wait_for(ready, lock_wait + _START_S))
        except TimeoutError:
            reason = f"the ledger's writer for {shown(place)} did not start within {lock_wait + _START_S:.0f} seconds"
        except BaseException:
            ours.close()
            await self.close()
            raise
        if reason is None and self._transport is None:
            reason = _DIED  # since it said that it was ready
        if reason is not None:
            await self.close()
            raise LedgerError(reason, code=WRITER_DIED if reason is _DIED else None)
        self._started = True

    async def connect(self, door: str) -> None:
        """Connect to a writer that listens at the path `door`, and wait until it is ready; LedgerError if it is not."""
        loop = asyncio.get_running_loop()
        ready = self._ready = loop.create_future()
        try:
            await loop.create_unix_connection(lambda: self, door)
            reason = self._heard(await asyncio.wait_for(ready, _START_S))
        except TimeoutError:
            reason = f"the ledger's writer did not answer within {_START_S:.0f} seconds"
        except OSError as error:
            reason = f"the ledger's writer cannot be reached: {error.strerror}"
        if reason is not None:
            await self.close()
            raise LedgerError(reason, code=WRITER_DIED)
        self._started = True

    @property
    def pid(self) -> int | None:
        """The writer's process id, where it is ours."""
        return None if self._process is None else self._process.pid

    def send(self, message: bytearray) -> None:
        """Send a batch; the one before must have been answered."""
        if self._transport is not None:
            self._transport.write(message)

    def kill(self) -> None:
        """End a writer that hangs, or the connection to it; `on_lost` follows."""
        if self._process is not None:
            self._process.kill()
        elif self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Let the writer finish what it was sent and end; kill it where it does not within 5 seconds."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()
        await asyncio.to_thread(self._reap)

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take an answer; nearly always the one that says that all is written."""
        if data == ALL_WRITTEN and not self._received:
            self._on_answer([])
            return
        self._received += data
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            message = bytes(self._received[LENGTH.size : end])
            del self._received[:end]
            if self._ready is None:
                self._on_answer(decode_failures(message))
            else:
                self._say_ready(decode_ready(message))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the signature is asyncio's
        """Notice that the writer is gone."""
        self._transport = None
        if not self._started:
            self._say_ready(_DIED)
        elif not self._ended:
            self._ended = True
            self._on_lost()

    def _say_ready(self, word: str | int) -> None:
        ready, self._ready = self._ready, None
        if ready is not None and not ready.done():
            ready.set_result(word)

    def _heard(self, word: str | int) -> str | None:
        """Take the writer's chain; or the reason why it is not ready."""
        if isinstance(word, str):
            return word
        self.chain = word
        return None

    def _reap(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _spawn(descriptor: int, lock_wait: float, listener: int | None, *, recover: bool) -> subprocess.Popen[bytes]:
    """Start the writer where the gateway's own modules are found, in a session that no terminal can interrupt."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [
            sys.executable,
            "-P",
            "-m",
            "upstack.core.store.writer",
            str(descriptor),
            str(lock_wait),
            "1" if recover else "0",
            *([] if listener is None else [str(listener)]),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[descriptor] if listener is None else [descriptor, listener],
        start_new_session=True,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Ours, for a process that finds modules where this one does."""
    folders = [*filter(None, sys.path), str(Path(upstack.__file__).parent.parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
