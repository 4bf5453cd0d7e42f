"""What is certified, for a gateway that serves: looked up in the ledger, twice a second, and served by from then on.

The process that proves plans is started here, by one worker of each host, and ends with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from upstack.application.gateway.beside import beside
from upstack.application.learning import load_student, wishes_of
from upstack.core.config import ledger_place
from upstack.core.errors import UpstackError
from upstack.core.store.reading import LEDGER_EMPTY
from upstack.core.store.standings import living, standings
from upstack.core.telemetry import fault, log
from upstack.core.types import STUDENT, Proved
from upstack.foundation.backends.student import StudentBackend
from upstack.foundation.rights import meets
from upstack.foundation.students.encoder import Encoder, encoder_of

if TYPE_CHECKING:
    from upstack.application.gateway.gateway import Gateway
    from upstack.foundation.students.student import Student

_NOTHING = b'{"place":"","keystore":null,"tasks":{}}'  # to look at
LOOK_S = 0.3  # between looks: a plan that is revoked serves so long at most
_AGAIN_S = 1.0  # after which a worker that ended is started again; longer where it ends over and over
_AGAIN_MOST_S = 60.0
_LONG_S = 30.0  # a worker that ran so long has not ended over and over


class Proofs:
    """Keeps a gateway on what is certified."""

    def __init__(self, gateway: Gateway, *, leads: bool) -> None:
        """`leads`: this is the one process of a host that has plans proved."""
        self._gateway = gateway
        self._leads = leads
        self._failed: str | None = None
        self._unreadable: dict[str, str] = {}  # students, and why

    async def look(self) -> None:
        """Take over what is certified; where the ledger cannot be read, what was stays until it expires."""
        gateway = self._gateway
        now = time.time()
        proved, students = gateway.state.proved, gateway.state.students
        if gateway.receipts != "off" and any(task.terms is not None for task in gateway.state.tasks.values()):
            try:
                proved = await asyncio.to_thread(standings, gateway.ledger.place, now)
                if any(task.learns for task in gateway.state.tasks.values()):
                    students = await self._class(await asyncio.to_thread(living, gateway.ledger.place))
                self._failed = None
            except UpstackError as error:
                if error.code != LEDGER_EMPTY and error.message != self._failed:
                    log(f"what is certified could not be looked up: {error.message}")
                    self._failed = error.message
                proved = {task: each if now < each.expires_at else Proved() for task, each in proved.items()}
        before = gateway.state.proved
        if proved != before or students != gateway.state.students:
            gateway.prove(proved, students)
            for task, each in proved.items():
                if each != before.get(task):
                    log(f"task {task}: {each.words or 'the reference answers'}")

    async def _class(self, students: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
        """Have all students of the ledger at hand before any plan names them; one that cannot be read is left out."""
        backend = self._gateway.backends[STUDENT]
        assert isinstance(backend, StudentBackend)  # noqa: S101 - the server made it
        wanted = {each for several in students.values() for each in several}
        if wanted != backend.known | self._unreadable.keys():
            found = await asyncio.to_thread(self._load, wanted, backend)
            backend.take(found)
        return {
            task: tuple(each for each in several if self._may_serve(backend.student(each), each))
            for task, several in students.items()
        }

    def _may_serve(self, student: Student | None, own_id: str) -> bool:
        """Whether it is at hand, and the conditions of those whose rows it learned from are met."""
        if student is None:
            return False
        profile = self._gateway.config.rights
        missed = [each for each in student.facts.conditions if not meets(each, profile, classifier=True)]
        if missed and self._unreadable.get(own_id) != missed[0]:
            log(f"the student {own_id} may not serve: what it learned from asks for {', '.join(missed)}")
            self._unreadable[own_id] = missed[0]
        return not missed

    def _load(self, wanted: set[str], backend: StudentBackend) -> dict[str, Student]:
        found = {}
        for each in wanted:
            student = backend.student(each)
            try:
                found[each] = student or load_student(self._gateway.ledger.place, each, self._encoders)
            except UpstackError as error:
                if self._unreadable.get(each) != error.message:
                    log(f"the student {each} cannot serve: {error.message}")
                self._unreadable[each] = error.message
        return found

    def _encoders(self, digest: str) -> Encoder:
        return encoder_of(self._gateway.config.loop.encoder, digest)

    async def keep(self) -> None:
        """Look again and again, for ever."""
        worker = asyncio.ensure_future(self._have_proved()) if self._leads else None
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                try:
                    await self.look()
                except Exception as error:  # noqa: BLE001 - the process's edge
                    fault("the look at what is certified failed; going on", error)
        finally:
            if worker is not None:
                worker.cancel()

    async def _have_proved(self) -> None:
        """Keep the worker running while there is something to prove."""
        pause = _AGAIN_S
        while True:
            began = time.monotonic()
            if self._job() is not None:
                try:
                    await self._work()
                except (OSError, UpstackError, msgspec.DecodeError) as error:
                    log(f"the worker that proves plans failed, and is started again: {error}")
                pause = min(2 * pause, _AGAIN_MOST_S) if time.monotonic() < began + _LONG_S else _AGAIN_S
            await asyncio.sleep(pause)

    async def _work(self) -> None:
        async with beside("upstack.application.rounds") as (stdin, stdout):
            teller = asyncio.ensure_future(self._tell(stdin))
            try:
                async for line in stdout:
                    _say(msgspec.json.decode(line))
            finally:
                teller.cancel()

    async def _tell(self, stdin: asyncio.StreamWriter) -> None:
        """Tell the worker what to look at, whenever that changes."""
        told = None
        while True:
            job = self._job()
            if job != told:
                stdin.write((job or _NOTHING) + b"\n")  # it may hold a password
                told = job
            await asyncio.sleep(LOOK_S)

    def _job(self) -> bytes | None:
        gateway = self._gateway
        tasks = {name: task.terms for name, task in gateway.state.tasks.items() if task.terms is not None}
        if not tasks or gateway.receipts == "off":
            return None
        place = ledger_place(gateway.limits.ledger)
        config = gateway.config
        return msgspec.json.encode(
            {
                "place": place,
                "keystore": gateway.limits.keystore,
                "tasks": tasks,
                "wishes": wishes_of(config, gateway.state),
                "loop": config.loop,
                "rights": config.rights,
            }
        )


def _say(word: dict[str, object]) -> None:
    about = f"task {word['task']}: " if word.get("task") else "proving plans: "
    if word.get("error"):
        log(f"{about}{word['error']}")
    did = word.get("did")
    for each in did if isinstance(did, list) else []:
        log(f"{about}{each}")
