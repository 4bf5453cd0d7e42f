"""Several processes on one port: started, watched, started again when they die, and ended.

Each has the whole gateway and takes its share of the connections from the kernel (SO_REUSEPORT). They share the limits'
counters in memory, and one writer of the ledger, to which each has a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

import upstack
from upstack.application.gateway.server import GOODBYE, announce, listen
from upstack.application.gateway.setup import Listening, Options, read_config, state_of
from upstack.application.gateway.together import Place, bury
from upstack.application.gateway.worker import Job, Word, job_bytes
from upstack.core.config import Config, ledger_place
from upstack.core.errors import LedgerError, UpstackError
from upstack.core.slots import make_memory
from upstack.core.store.link import WriterLink
from upstack.core.telemetry import configure, log

QUICK_S = 5.0  # a worker that lived no longer did not start
QUICK_MOST = 5  # such deaths in a row after which all is ended, where no other worker serves
LOCK_WAIT_S = 10.0  # for the writer of a gateway that has just ended
_BACKOFF_S = 0.1
_BACKOFF_MOST_S = 3.0


def run(options: Options, ready: Callable[[Listening], None] = announce) -> None:
    """Serve with the configured number of workers until SIGTERM or SIGINT. Raises ConfigError or LedgerError."""
    asyncio.run(_run(options, ready))


async def _run(options: Options, ready: Callable[[Listening], None]) -> None:
    config = read_config(options)
    configure(config.server.log, config.server.log_level)
    state_of(config, 1, None)  # what is wrong with it is said once
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="upstack-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        listen(config.server.host, config.server.port).close()  # another gateway could share it unnoticed
        port = stack.enter_context(contextlib.closing(listen(config.server.host, config.server.port, shared=True)))
        supervisor = Supervisor(options, config, folder, port.getsockname()[1])
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        loop.add_signal_handler(signal.SIGHUP, supervisor.tell, signal.SIGHUP)
        await supervisor.run(ready)


class Supervisor:
    """Keeps the workers and the writer alive."""

    def __init__(self, options: Options, config: Config, folder: Path, port: int) -> None:
        self._options = options
        self._server = config.server
        self._folder = folder
        self._port = port
        self._memory = make_memory(config.server.workers)
        self._leash = os.pipe()  # its end for writing is closed when this process ends, however it ends
        self._door: socket.socket | None = None
        self._writer: WriterLink | None = None
        self._wanted = True  # until the last worker has ended: what it answers while it stops is recorded, too
        self._restart: asyncio.Future[None] | None = None
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._listening: set[int] = set()
        self._stopping = asyncio.Event()
        self._failed: str | None = None

    def stop(self) -> None:
        """End all workers; asked twice: at once."""
        self.tell(signal.SIGTERM)
        self._stopping.set()

    def tell(self, number: signal.Signals) -> None:
        """Send every worker a signal."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def run(self, ready: Callable[[Listening], None]) -> None:
        """Serve until told to stop."""
        keepers: list[asyncio.Task[None]] = []
        try:
            if self._server.receipts != "off":
                self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._door.bind(str(self._folder / "ledger"))
                self._door.listen(self._server.workers + 8)
                await self._start_writer(recover=True)
            rows = range(1, self._server.workers + 1)
            started = await asyncio.gather(*(self._start(row) for row in rows))
            keepers = [asyncio.create_task(self._keep(row)) for row in rows]
            ready(started[0])
            await self._stopping.wait()
        finally:
            await self._end(keepers)
        if self._failed is not None:
            raise UpstackError(self._failed)

    async def _end(self, keepers: list[asyncio.Task[None]]) -> None:
        self._stopping.set()
        self.tell(signal.SIGTERM)
        if keepers:
            _, late = await asyncio.wait(keepers, timeout=self._server.drain + GOODBYE + 10)
            if late:
                self.tell(signal.SIGKILL)
                await asyncio.wait(late)
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._wanted = False
        if self._restart is not None:
            self._restart.cancel()
            await asyncio.wait([self._restart])
        if self._writer is not None:
            await self._writer.close()
        for descriptor in (*self._leash, self._memory):
            os.close(descriptor)
        if self._door is not None:
            self._door.close()

    async def _start(self, row: int) -> Listening:
        """Start a worker and wait until it listens; UpstackError where it cannot."""
        memory, leash = self._memory, self._leash[0]
        door = None if self._door is None else str(self._folder / "ledger")
        place = Place(row, self._server.workers, memory, leash, self._folder, door, self._port)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "upstack.application.gateway.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=[memory, leash],
            start_new_session=True,  # Ctrl-C is this process's to pass on
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_folders())},
        )
        self._processes[row] = process
        if self._stopping.is_set():  # the others have been told already
            process.terminate()
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - both are pipes
        process.stdin.write(job_bytes(Job(self._options, place)))
        process.stdin.close()
        said = await process.stdout.readline()
        word = msgspec.json.decode(said, type=Word) if said else Word(error="it ended without a word")
        if word.listening is None:
            await process.wait()
            raise UpstackError(f"worker {row}: {word.error}")
        self._listening.add(row)
        return word.listening

    async def _keep(self, row: int) -> None:
        """Start a worker again whenever it dies."""
        quick = 0
        while True:
            began = time.monotonic()
            code = await self._processes[row].wait()
            self._listening.discard(row)
            if self._stopping.is_set():
                return
            bury(self._folder, row)
            quick = quick + 1 if time.monotonic() - began < QUICK_S else 1
            log(f"worker {row} ended ({_how(code)}) and is started again")
            if quick > 1:
                await asyncio.sleep(min(_BACKOFF_S * 2**quick, _BACKOFF_MOST_S))
            if self._stopping.is_set():
                return
            try:
                await self._start(row)
            except UpstackError as error:
                if self._stopping.is_set():  # it was told to end while it began, as all others were
                    return
                log(error.message)
            if quick >= QUICK_MOST and not self._listening:
                self._failed = f"worker {row} died {quick} times in a row; the lines before this say why"
                self._stopping.set()
                return

    async def _start_writer(self, *, recover: bool) -> None:
        assert self._door is not None  # noqa: S101 - receipts are kept
        link = WriterLink(lambda _: None, self._on_writer_lost)
        place = ledger_place(self._server.ledger)
        await link.start(
            place, LOCK_WAIT_S, recover=recover, listener=self._door.fileno(), keystore=self._server.keystore
        )
        self._writer = link

    def _on_writer_lost(self) -> None:
        lost, self._writer = self._writer, None
        if lost is not None and self._wanted:
            log("the ledger's writer ended and is started again")
            self._restart = asyncio.ensure_future(self._replace_writer(lost))

    async def _replace_writer(self, lost: WriterLink) -> None:
        await lost.close()
        delay = _BACKOFF_S
        while self._wanted:
            try:
                await self._start_writer(recover=False)
            except LedgerError as error:  # the workers refuse what they cannot record meanwhile
                log(error.message)
                await asyncio.sleep(delay)
                delay = min(2 * delay, 2.0)
            else:
                return


def _folders() -> Iterator[str]:
    """Where this process's own modules are found."""
    yield from filter(None, sys.path)
    yield str(Path(upstack.__file__).parent.parent)


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
