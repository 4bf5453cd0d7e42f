"""`upstack ask`: one question through the gateway, the answer as it comes, then a line from its receipt."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from upstack.application.client import own_key, reason_of, refusal, through_proxy, trust
from upstack.application.gateway.explain import REPLAYED, cost_in_words
from upstack.application.gateway.state import build_state
from upstack.cli.answering import Answer, read_stream
from upstack.cli.options import read
from upstack.cli.output import print_json, printable, say
from upstack.cli.which_gateway import one_or_own, running
from upstack.core.config import Config
from upstack.core.errors import ConfigError, UpstackError
from upstack.foundation.catalog import providers_from

MODEL_VARIABLE = "UPSTACK_MODEL"


class Question(msgspec.Struct, frozen=True):
    """What the command line was given."""

    text: str
    model: str | None
    system: str | None
    as_json: bool


def run(question: Question, url: str | None, config: Path | None) -> None:
    """Ask and print. UpstackError where there is no whole answer; what came of it has been printed."""
    messages = _messages(question)
    try:
        asyncio.run(_ask(question, messages, url, config))
    except asyncio.CancelledError:  # Ctrl-C while a gateway of our own ran
        raise KeyboardInterrupt from None


def _messages(question: Question) -> list[dict[str, str]]:
    text = sys.stdin.buffer.read().decode("utf-8", "replace") if question.text == "-" else question.text
    if not text.strip():
        raise ConfigError('the question is empty; write it in quotes, or "-" to read it from standard input')
    said = ([("system", question.system)] if question.system else []) + [("user", text)]
    # A command line that is not UTF-8 holds lone surrogates, which no request can.
    return [{"role": role, "content": said_text.encode("utf-8", "replace").decode()} for role, said_text in said]


async def _ask(question: Question, messages: list[dict[str, str]], url: str | None, config: Path | None) -> None:
    found = await asyncio.to_thread(running, url, config)
    model = question.model or os.environ.get(MODEL_VARIABLE, "").strip() or await _only_model(found, config)
    async with contextlib.AsyncExitStack() as stack:
        base = await stack.enter_async_context(one_or_own(found, config))
        http = await stack.enter_async_context(_client(base))
        body = {"model": model, "messages": messages, "stream": True}
        answer = Answer()
        try:
            async with http.stream("POST", f"{base}/v1/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise _refused(response, await response.aread())
                answer.receipt = response.headers.get("x-upstack-receipt", "")
                answer.route = response.headers.get("x-upstack-route", "")
                await read_stream(response, answer, None if question.as_json else _Printer())
        except httpx2.HTTPError as error:
            answer.error = answer.error or f"the gateway at {base} broke off: {reason_of(error)}"
        _tell(question, model, answer, await _receipt(http, base, answer))


def _tell(question: Question, model: str, answer: Answer, receipt: dict[str, Any] | None) -> None:
    """Print what is left to be said once the answer is over; UpstackError where it is not whole."""
    if question.as_json:
        print_json(_as_json(model, answer, receipt))
    elif not answer.error:
        say(_summary(answer, receipt), style="dim", stderr=True)
    if answer.error:
        hint = f"; `upstack why {answer.receipt}` says more" if receipt else ""
        raise UpstackError(f"{answer.error}{hint}", code=answer.error_code)


# --- Which model -----------------------------------------------------------------------------------------------------


def _client(base: str) -> httpx2.AsyncClient:
    """A client that waits as long as the gateway does."""
    limits = httpx2.Timeout(None, connect=10.0)
    return httpx2.AsyncClient(trust_env=through_proxy(base), verify=trust(base), timeout=limits, headers=own_key())


async def _only_model(base: str | None, config: Path | None) -> str:
    """The only task, else the only route, of the running gateway or of the configuration; else ConfigError."""
    if base is None:
        names = sorted(build_state(read(config), os.environ, 1).plans)
    else:
        async with _client(base) as http:
            answer = await http.get(f"{base}/v1/models")
        if answer.status_code != 200:
            raise _refused(answer, answer.content)
        names = [str(row["id"]) for row in answer.json()["data"]]
    tasks = [name for name in names if name.startswith("task/")]
    for several in (tasks, names):
        if len(several) == 1:
            return several[0]
    raise ConfigError(_which(tasks + [name for name in names if name not in tasks], read(config)))


def _which(names: list[str], config: Config) -> str:
    providers = sorted(providers_from(config, os.environ))
    if not names and not providers:
        return "no provider was found, so nobody can be asked; set a key (OPENAI_API_KEY, ...), or see `upstack doctor`"
    known = f"; there are {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""
    free = f"; any PROVIDER/MODEL works for {', '.join(providers[:8])}" if providers else ""
    return f"name a model with --model, or in {MODEL_VARIABLE}{known}{free}"


# --- What is said of it ----------------------------------------------------------------------------------------------


class _Printer:
    """Writes text to standard output as it comes, without what could drive a terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._last = "\n"

    def __call__(self, text: str) -> None:
        if text:
            self._last = text[-1]
            sys.stdout.write(printable(text) if self._terminal else text)
            sys.stdout.flush()

    def end(self) -> None:
        """End the line, if the answer did not."""
        if self._last != "\n":
            self("\n")


def _refused(response: httpx2.Response, content: bytes) -> UpstackError:
    receipt = response.headers.get("x-upstack-receipt")
    hint = f"; `upstack why {receipt}` says more" if receipt else ""
    message, code = refusal(response.status_code, content)
    return UpstackError(message + hint, code=code)


async def _receipt(http: httpx2.AsyncClient, base: str, answer: Answer) -> dict[str, Any] | None:
    """The receipt as the gateway explains it; None where it keeps none."""
    try:
        response = await http.get(f"{base}/v1/receipts/{answer.receipt}", timeout=10)
        return dict(response.json()) if response.status_code == 200 else None
    except (httpx2.HTTPError, ValueError):
        return None


def _summary(answer: Answer, found: dict[str, Any] | None) -> str:
    if found is None:
        return f"{answer.route or 'answered'} | no receipt is kept"
    usage = found["usage"]
    asked, said = (usage["input_tokens"], usage["output_tokens"]) if usage else (0, 0)
    tokens = f"{asked} token{'' if asked == 1 else 's'} in, {said} out" if usage else "tokens unknown"
    cost = found["cost_picodollars"]
    price = "cost unknown" if cost is None else cost_in_words(cost)
    cut = f" | ended by {answer.finish_reason}" if answer.finish_reason not in {"stop", ""} else ""
    replayed = REPLAYED if found.get("replayed") else ""
    return f"{found['route']}{replayed} | {tokens} | {price}{cut} | {found['id']}"


def _as_json(model: str, answer: Answer, found: dict[str, Any] | None) -> dict[str, Any]:
    known = found or {}
    return {
        "model": model,
        "answer": answer.text,
        "finish_reason": answer.finish_reason or None,
        "error": answer.error or None,
        "route": known.get("route") or answer.route or None,
        "receipt": answer.receipt if found else None,
        "usage": known.get("usage"),
        "cost_picodollars": known.get("cost_picodollars"),
        "cost_usd": known.get("cost_usd"),
        "why": known.get("why"),
        "replayed": known.get("replayed"),
    }
