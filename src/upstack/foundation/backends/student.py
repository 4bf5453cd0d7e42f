"""The student backend: answers from small models of one's own, in this process, in the wire format of all others.

How sure a student is stands with its answer as the log-probability of its one token, where other models have theirs.
One that reads runs of words takes less than a millisecond; one that stands on an encoder is asked beside the event
loop. Students come and go while requests are served; the route's model names one by its id.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from upstack.core.clock import Clock, SystemClock
from upstack.core.errors import Failure, SupplyError
from upstack.core.types import Request, Target
from upstack.foundation.backends.base import Call, Receiver
from upstack.foundation.backends.given import EVENTS, JSON, Frame, Given, GivenCall
from upstack.foundation.students.student import Said, Student, read_by_student

_NEVER = -100.0  # the log-probability of what is not trusted at all


class StudentBackend:
    """A `Backend` over the students that it is given."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._students: dict[str, Student] = {}
        self._calls: set[_Thinking | GivenCall] = set()
        self._numbers = itertools.count(1)

    @property
    def known(self) -> set[str]:
        """The ids of the students that can answer."""
        return set(self._students)

    def student(self, own_id: str) -> Student | None:
        """A student that can answer."""
        return self._students.get(own_id)

    def take(self, students: Mapping[str, Student]) -> None:
        """Have these answer from now on, and no others; what is being answered is answered."""
        self._students = dict(students)

    def send(self, target: Target, request: Request, receiver: Receiver) -> Call:
        """Answer, or fail over where the student is not there, or cannot read the request."""
        model = target.route.model
        student = self._students.get(model.rpartition(":")[2])
        call = _Thinking(receiver, self._calls.discard)
        self._calls.add(call)
        try:
            text = read_by_student(msgspec.json.decode(request.fields["messages"], type=list[Any]))
        except (KeyError, ValueError, RecursionError):
            text = ""
        if student is None or not text:
            why = f"there is no student {model}" if student is None else "a student answers what a user says in words"
            call.fail(SupplyError(Failure.NOT_FOUND if student is None else Failure.UNFIT, why))
        elif student.is_quick:
            call.later(lambda: self._answer(call, model, student.say(text), request))
        else:
            call.beside(student, text, lambda said: self._answer(call, model, said, request))
        return call

    async def close(self) -> None:
        """Cancel the calls in flight."""
        for call in tuple(self._calls):
            call.cancel()

    def _answer(self, call: _Thinking, model: str, said: Said, request: Request) -> None:
        logprob = math.log(said.confidence) if said.confidence > 0 else _NEVER
        token = {"token": said.content, "logprob": logprob, "bytes": None, "top_logprobs": []}
        scores = msgspec.json.encode({"content": [token], "refusal": None})
        given = Given(said.content, 0, 0, 0.0, "stop", scores)
        frame = Frame(f"chatcmpl-student-{next(self._numbers)}", model, int(self._clock.time()))
        if request.stream:
            call.deliver(EVENTS, frame.events([given], logprobs=True))
        else:
            call.deliver(JSON, iter((frame.completion([given], logprobs=True),)))


class _Thinking:
    """A call to a student, until it has said something; then that is delivered."""

    def __init__(self, receiver: Receiver, done: Any) -> None:
        self._receiver, self._done = receiver, done
        self._loop = asyncio.get_running_loop()
        self._over = False
        self._paused = False
        self._given: GivenCall | None = None
        self.unheard = False

    def cancel(self) -> None:
        """Stop at once; nothing more is delivered."""
        self._over = True
        self._done(self)
        if self._given is not None:
            self._given.cancel()

    def pause(self) -> None:
        """Hold the answer back."""
        self._paused = True
        if self._given is not None:
            self._given.pause()

    def resume(self) -> None:
        """Deliver on."""
        self._paused = False
        if self._given is not None:
            self._given.resume()

    def fail(self, error: SupplyError) -> None:
        """Say on the event loop's next turn that nothing comes."""

        def end() -> None:
            if not self._over:
                self.cancel()
                self._receiver.on_failure(error)

        self._loop.call_soon(end)

    def later(self, answer: Any) -> None:
        """Answer on the event loop's next turn."""
        self._loop.call_soon(lambda: None if self._over else answer())

    def beside(self, student: Student, text: str, answer: Any) -> None:
        """Have the student think in a thread."""

        async def think() -> None:
            said = await asyncio.to_thread(student.say, text)
            if not self._over:
                answer(said)

        self._task = asyncio.ensure_future(think())

    def deliver(self, headers: Mapping[bytes, bytes], body: Iterator[bytes]) -> None:
        """Hand an answer over."""
        self._given = GivenCall(self._receiver, 200, headers, body, lambda _: self._done(self))
        if self._paused:
            self._given.pause()
        self._given.start(0.0)
