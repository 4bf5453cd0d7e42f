"""`POST /v1/feedback`: what became of an answer, told by the key that asked for it or by one that judges.

An outcome is durable before it is acknowledged. Told again under its idempotency key, it is there once.
"""

from __future__ import annotations

import asyncio
import math
import re
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request as HttpRequest

from upstack.application.gateway.auth import Caller, caller_of, may_see
from upstack.application.gateway.gateway import Gateway
from upstack.application.gateway.head import check_body, too_large
from upstack.core.config import NAME
from upstack.core.errors import LedgerError, RequestError, UpstackError
from upstack.core.mistakes import in_words, split, unreadable
from upstack.core.store.base import OUTCOME_KNOWN
from upstack.core.store.checks import JUDGES
from upstack.core.store.ids import outcome_id
from upstack.core.store.outcomes import Earlier, earlier, newest_of_episode
from upstack.core.types import Outcome, Receipt

_MOST_BYTES = 1024 * 1024  # of a body
_LIMITED = "what feedback may have"
_MOST_OUTCOMES = 1000  # of one key about one receipt or episode
_MOST_AT_ONCE = 64  # being told; more would only wait
_LONGEST_NAME = 200  # characters of an episode, a source or an idempotency key
_CLOCKS_APART_S = 300.0
_TICK_S = 2e-6  # what sets an outcome behind one that it supersedes, whatever the clock says


class Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body. `value`: whether it was good, or how good in 0 to 1."""

    receipt: str | None = None
    episode: str | None = None
    name: str = "outcome"
    value: bool | int | float | None = None
    comment: str | None = None
    demonstration: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # the right answer: a text, or any JSON
    observed_at: str | int | float | None = None  # RFC 3339, or Unix seconds
    source: str | None = None
    idempotency_key: str | None = None
    withdraw: bool = False  # what was told before of that name


_SAID = msgspec.json.Decoder(Said)


class Feedback:
    """The endpoint, for one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._at_once = 0

    async def take(self, request: HttpRequest) -> tuple[dict[str, Any], int]:
        """Record what a request tells: the answer's body and its HTTP status. Raises RequestError and LedgerError."""
        if self._gateway.receipts == "off":
            raise RequestError('Nothing is recorded: server.receipts is "off"', status=404, code="receipt_not_found")
        self._gateway.admit()
        if self._at_once >= _MOST_AT_ONCE:
            raise UpstackError("Too much is being told at once; try again in a second", status=503, code="busy")
        self._at_once += 1
        try:
            said = read_said(await _body(request))
            return await self._take(said, caller_of(request), request.headers.get("idempotency-key"))
        finally:
            self._at_once -= 1

    async def _take(self, said: Said, caller: Caller | None, header: str | None) -> tuple[dict[str, Any], int]:
        about = await self._about(said, caller)
        outcome = self._outcome(said, caller, about, said.idempotency_key or header)
        met = await self._earlier(outcome)
        if met.same is None:
            if met.count >= _MOST_OUTCOMES:
                message = f"This key has told {met.count:,} outcomes of it already, and no more are taken"
                raise RequestError(message, status=429, code="too_many_outcomes")
            if met.latest is not None and met.latest >= outcome.created_at:
                outcome = msgspec.structs.replace(outcome, created_at=met.latest + _TICK_S)
            if await self._recorded(outcome):
                counts = outcome.value is not None or outcome.withdrawn
                return _answer(outcome) | {"superseded": met.superseded if counts else None}, 201
            met = await self._earlier(outcome)  # another has just told it
        if met.same is None or not _alike(met.same, outcome, timed=said.observed_at is not None):
            message = "The idempotency key was used for another outcome"
            raise RequestError(message, status=409, code="idempotency_key_reused", param="idempotency_key")
        return _answer(met.same) | {"duplicate": True}, 200

    async def _about(self, said: Said, caller: Caller | None) -> Receipt:
        """The receipt, or the newest of the episode; RequestError (404) where the caller may see none."""
        ledger, wanted = self._gateway.ledger, said.receipt
        if said.episode is not None:
            mine = caller.name if caller is not None and caller.role == "app" else None
            wanted = await asyncio.to_thread(newest_of_episode, ledger.place, said.episode, mine)
        found = await ledger.get(wanted) if wanted is not None and len(wanted) <= 64 else None
        if found is None or not may_see(caller, found.key):
            what = "receipt" if said.episode is None else "episode"
            raise RequestError(f"There is no such {what}", status=404, code=f"{what}_not_found", param=what)
        return found

    def _outcome(self, said: Said, caller: Caller | None, about: Receipt, idempotency_key: str | None) -> Outcome:
        now = self._gateway.clock.time()
        own_id = outcome_id(self._gateway.new_id(now))
        content = _content(said, about)
        name = caller.name if caller is not None else None
        of_own = caller is not None and caller.role == "app" and said.episode is not None
        return Outcome(
            id=own_id,
            created_at=now,
            observed_at=_observed(said.observed_at, now),
            receipt=None if said.receipt is None else about.id,
            episode=said.episode,
            only_key=name if of_own else None,
            name=said.name,
            value=said.value if isinstance(said.value, bool) else _score(said.value),
            withdrawn=said.withdraw,
            source=_source(said.source, caller),
            key=name,
            idempotency_key=_short("idempotency_key", idempotency_key) or own_id,
            comment=content[0],
            demonstration=content[1],
            subject=about.subject,
            encrypted=about.encrypted and content != (None, None),
        )

    async def _earlier(self, outcome: Outcome) -> Earlier:
        ledger = self._gateway.ledger
        return await asyncio.to_thread(earlier, ledger.place, outcome, ledger.keystore)

    async def _recorded(self, outcome: Outcome) -> bool:
        """Whether it is durable now; False where its idempotency key is taken."""
        future: asyncio.Future[LedgerError | None] = self._gateway.loop.create_future()

        def done(error: LedgerError | None) -> None:
            if not future.done():
                future.set_result(error)

        self._gateway.ledger.tell(outcome, done)
        error = await future
        if error is not None and error.message != OUTCOME_KNOWN:
            raise error
        return error is None


def read_said(body: bytes) -> Said:
    """Read a body; RequestError names the member at fault."""
    try:
        said = _SAID.decode(body)
        if not body.isascii():
            body.decode()  # a demonstration is taken as it stands
    except msgspec.ValidationError as error:
        path, what = split(str(error))
        raise RequestError(f"The body: {in_words(path, what)}", param=path or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unreadable(error) from None
    if (said.receipt is None) == (said.episode is None):
        raise RequestError("Say `receipt` or `episode`, one of them", param="receipt")
    _short("episode", said.episode)
    if re.fullmatch(NAME, said.name) is None or len(said.name) > _LONGEST_NAME:
        raise RequestError("name: a name has letters, digits and . _ : - only", param="name")
    if said.withdraw and said.value is not None:
        raise RequestError("withdraw takes back what was told, and tells no `value`", param="withdraw")
    if said.value is None and said.comment is None and said.demonstration is msgspec.UNSET and not said.withdraw:
        raise RequestError("Tell a `value`, `comment` or `demonstration`, or `withdraw`", param="value")
    return said


async def _body(request: HttpRequest) -> bytes:
    headers = {name.lower(): value for name, value in request.scope["headers"]}
    check_body(headers, _MOST_BYTES, _LIMITED)
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > _MOST_BYTES:
            raise too_large(_MOST_BYTES, _LIMITED)
        pieces.append(piece)
    return b"".join(pieces)


def _content(said: Said, about: Receipt) -> tuple[bytes | None, bytes | None]:
    """Comment and demonstration, which go where the answer's own content is, and nowhere else."""
    demonstration: bytes | None = None
    if not isinstance(said.demonstration, msgspec.UnsetType):
        demonstration = bytes(said.demonstration)
        if demonstration.startswith(b'"'):
            demonstration = msgspec.json.decode(demonstration, type=str).encode()
        elif demonstration == b"null":
            demonstration = None
    comment = said.comment.encode() if said.comment is not None else None
    here = about.capture == "full" and (about.request is not None or about.answer is not None or about.encrypted)
    if not here and (comment is not None or demonstration is not None):
        message = "The ledger keeps no content of this request, hence no comment or demonstration; tell a value alone"
        raise RequestError(message, status=409, code="content_not_kept")
    return comment, demonstration


def _score(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 1:  # NaN is in no range
        raise RequestError("value: true, false or a number in 0 to 1", param="value")
    return None if value is None else float(value)


def _observed(said: str | float | None, now: float) -> float:
    if said is None:
        return now
    try:
        if isinstance(said, str):
            moment = datetime.fromisoformat(said)
            seconds = math.nan if moment.tzinfo is None else moment.timestamp()
        else:
            seconds = float(said)
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= now + _CLOCKS_APART_S:  # NaN is in no range
        message = "observed_at: RFC 3339 with its time zone, or Unix seconds, and not in the future"
        raise RequestError(message, param="observed_at")
    return seconds


def _source(said: str | None, caller: Caller | None) -> str:
    """Who says so. To call oneself a reviewer or a test takes a key of that role: such labels are evidence."""
    source = _short("source", said)
    if caller is None:
        return source or "local"
    judges = caller.role in {"reviewer", "admin"}
    if source is not None and source.partition(":")[0] in JUDGES and not judges:
        message = f"Only a key with the role reviewer tells as {source.partition(':')[0]}: its labels are evidence"
        raise RequestError(message, status=403, code="permission_denied", param="source")
    if judges:
        return source or f"{JUDGES[0]}:{caller.name}"
    return source or (f"key:{caller.name}" if caller.name.partition(":")[0] in JUDGES else caller.name)


def _short(what: str, text: str | None) -> str | None:
    if text is not None and not (0 < len(text) <= _LONGEST_NAME and text.isprintable()):
        raise RequestError(f"{what}: 1 to {_LONGEST_NAME} printable characters are expected", param=what)
    return text


def _alike(one: Outcome, other: Outcome, *, timed: bool) -> bool:
    """Whether two tell the same; a content that is gone or cannot be read is taken to be."""

    def told(outcome: Outcome) -> tuple[Any, ...]:
        when = round(outcome.observed_at, 3) if timed else None
        what = (outcome.receipt, outcome.episode, outcome.name, type(outcome.value), outcome.value, outcome.withdrawn)
        return (*what, outcome.source, when)

    parts = ((one.comment, other.comment), (one.demonstration, other.demonstration))
    return told(one) == told(other) and all(kept is None or kept == again for kept, again in parts)


def _answer(outcome: Outcome) -> dict[str, Any]:
    about = "receipt" if outcome.receipt is not None else "episode"
    return {"id": outcome.id, about: outcome.receipt or outcome.episode, "name": outcome.name}
