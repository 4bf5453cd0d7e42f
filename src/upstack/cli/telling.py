"""`upstack feedback`: tells the gateway what became of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from upstack.application.client import own_key, reason_of, refusal, through_proxy, trust
from upstack.cli.explaining import LAST, NOT_FOUND
from upstack.cli.options import ledger_of
from upstack.cli.output import print_json, say
from upstack.cli.which_gateway import one_or_own, running
from upstack.core.errors import ConfigError, RequestError, UpstackError
from upstack.core.store.reading import last_asked

_TIMEOUT_S = 30.0
_MOST_BYTES = 1024 * 1024


class Told(msgspec.Struct, frozen=True):
    """What the command line was given; None: not said."""

    receipt: str | None
    episode: str | None
    name: str | None
    value: str | None
    comment: str | None
    demonstration: str | None  # a text, "@FILE", or "-" for standard input
    observed_at: str | None
    source: str | None
    idempotency_key: str | None
    withdraw: bool


def run(told: Told, url: str | None, config: Path | None, *, as_json: bool) -> None:
    """Tell it and print what was recorded. UpstackError where it was not."""
    body = _body(told, config)
    try:
        answer = asyncio.run(send(body, url, config))
    except asyncio.CancelledError:  # Ctrl-C while a gateway of our own ran
        raise KeyboardInterrupt from None
    if as_json:
        print_json(answer)
        return
    about = answer.get("receipt") or f"the episode {answer.get('episode')}"
    if answer.get("duplicate"):
        say(f"{answer['id']} of {about} is there already")
    else:
        before = f"; it supersedes {answer['superseded']}" if answer.get("superseded") else ""
        say(f"{answer['id']} recorded of {about}{before}")


def _body(told: Told, config: Path | None) -> dict[str, Any]:
    if (told.receipt is None) == (told.episode is None):
        raise ConfigError("say of which receipt (an id, or last), or of which --episode")
    said = {name: value for name, value in msgspec.structs.asdict(told).items() if value not in {None, False}}
    if told.value is not None:
        said["value"] = _value(told.value)
    if told.receipt == LAST:
        newest = last_asked(ledger_of(None, config))
        if newest is None:
            raise RequestError("there are no receipts yet; ask something first", code=NOT_FOUND)
        said["receipt"] = newest
    if told.demonstration is not None:
        said["demonstration"] = _text(told.demonstration)
    # A command line that is not UTF-8 holds lone surrogates, which no request can.
    texts = {name: value.encode("utf-8", "replace").decode() for name, value in said.items() if isinstance(value, str)}
    clean = {**said, **texts}
    if "observed_at" in clean:
        with contextlib.suppress(ValueError):
            clean["observed_at"] = float(clean["observed_at"])
    return clean


def _value(said: str) -> bool | float:
    words = {"true": True, "good": True, "false": False, "bad": False}
    if said.lower() in words:
        return words[said.lower()]
    try:
        value = float(said)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f'--value: expected true, false or a number in 0 to 1, got "{said}"')
    return value


def _text(said: str) -> str:
    if said == "-":
        content = sys.stdin.buffer.read(_MOST_BYTES + 1)
    elif said.startswith("@"):
        try:
            with Path(said[1:]).open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"--demonstration: {said[1:]} cannot be read: {error.strerror or error}") from None
    else:
        return said
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"--demonstration: above {_MOST_BYTES} bytes")
    return content.decode("utf-8", "replace")


async def send(body: dict[str, Any], url: str | None, config: Path | None) -> dict[str, Any]:
    """Tell the gateway that runs, or one of our own. RequestError where it does not take it."""
    found = await asyncio.to_thread(running, url, config)
    async with contextlib.AsyncExitStack() as stack:
        base = await stack.enter_async_context(one_or_own(found, config))
        http = httpx2.AsyncClient(
            trust_env=through_proxy(base), verify=trust(base), timeout=_TIMEOUT_S, headers=own_key()
        )
        try:
            response = await (await stack.enter_async_context(http)).post(f"{base}/v1/feedback", json=body)
        except httpx2.HTTPError as error:
            raise UpstackError(f"the gateway at {base} broke off: {reason_of(error)}") from None
    if response.status_code not in {200, 201}:
        message, code = refusal(response.status_code, response.content)
        raise RequestError(message, code=code)
    return dict(response.json())
