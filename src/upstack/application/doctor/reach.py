"""What answers: the configured providers, a gateway, and model servers on this machine that nobody configured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx2
import msgspec

from upstack.application.client import PROBE_S, judge, reason_of, through_proxy, trust
from upstack.application.doctor.finding import Finding
from upstack.application.doctor.settings import Settings
from upstack.core.errors import SupplyError
from upstack.core.types import Provider
from upstack.foundation.catalog import Row, rows
from upstack.foundation.upstream.tls import Contexts

_CONNECT_S = 5.0
_ANSWER_S = 8.0
_LOCAL_S = 0.7


async def reach(settings: Settings, base: str) -> list[Finding]:
    """Try everything at once; `base` is where the gateway would listen."""
    providers = sorted(settings.providers.values(), key=lambda provider: provider.name)
    taken = {urlsplit(provider.base_url).port for provider in providers} | {urlsplit(base).port}
    checks = [
        _gateway(base),
        *(_provider(provider, settings.sources[provider.name]) for provider in providers),
        *(_unconfigured(row) for row in rows() if row.local and row.default_port not in {None, *taken}),
    ]
    return [finding for found in await asyncio.gather(*checks) for finding in found]


async def _gateway(base: str) -> list[Finding]:
    try:
        async with httpx2.AsyncClient(trust_env=through_proxy(base), verify=trust(base), timeout=PROBE_S) as http:
            found, words = judge(await http.get(f"{base}/readyz"))
    except httpx2.HTTPError:
        return [Finding("note", "gateway", f"none runs at {base}", "start it with `upstack serve`")]
    if found == "ready":
        return [Finding("ok", "gateway", f"serves at {base}/v1")]
    if found == "not ready":
        return [Finding("note", "gateway", f"the one at {base} takes no requests now: {words}")]
    text = f"something that is no gateway of ours answers at {base} ({words})"
    return [Finding("problem", "gateway", text, "stop it, or set server.port")]


async def _provider(provider: Provider, sources: Sequence[str]) -> list[Finding]:
    """Ask for its list of models with each of its keys."""
    try:
        verify = Contexts().get(provider.tls) if provider.base_url.startswith("https:") else trust(provider.base_url)
    except SupplyError as error:
        remedy = f"check ca_bundle, client_cert and client_key of [providers.{provider.name}]"
        return [Finding("problem", "reach", f"{provider.name}: {error.message}", remedy)]
    timeout = httpx2.Timeout(_ANSWER_S, connect=_CONNECT_S)
    trust_env = through_proxy(provider.base_url)
    async with httpx2.AsyncClient(trust_env=trust_env, verify=verify, timeout=timeout) as http:
        results = await asyncio.gather(
            *(
                _try(http, provider, dict(headers), sources[index] if index < len(sources) else "")
                for index, headers in enumerate(provider.headers)
            )
        )
    return list(dict.fromkeys(results))  # keys that fare alike need one line


async def _try(http: httpx2.AsyncClient, provider: Provider, headers: dict[str, str], key: str) -> Finding:
    name = provider.name
    began = time.monotonic()
    try:
        url = f"{provider.base_url}/models"
        async with http.stream("GET", url, headers=headers, params=list(provider.query)) as response:
            status = response.status_code
    except httpx2.TimeoutException:
        seconds = time.monotonic() - began
        return Finding("problem", "reach", f"{name}: no answer within {seconds:.0f} s", _network(provider))
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        reason = reason_of(error)
        return Finding("problem", "reach", f"{name} cannot be reached: {reason}", _network(provider, reason))
    if status == 401:
        refused = f"refuses the key {key}" if key else "wants a key"
        return Finding("problem", "reach", f"{name} {refused} (HTTP 401)", "set a key that is valid there")
    if status == 403:
        text = f"{name} answers, but not about its models (HTTP 403)"
        return Finding("note", "reach", text, "the key may lack that right, or the place you call from is refused")
    if status >= 500:
        return Finding("problem", "reach", f"{name} fails with HTTP {status}", "try again, or see its status page")
    said = {200: "", 429: " (HTTP 429: it limits the rate now)"}.get(status, f" (HTTP {status} to the list of models)")
    return Finding("ok", "reach", f"{name} answers{said}")


def _network(provider: Provider, reason: str = "") -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return f'with a private authority, set ca_bundle = "FILE" in [providers.{provider.name}]'
    if not through_proxy(provider.base_url):
        return f"is it running? It is looked for at {provider.base_url}"
    return "check the network, HTTPS_PROXY, and base_url"


async def _unconfigured(row: Row) -> list[Finding]:
    """Look whether such a server runs at its usual port of this machine."""
    base = f"http://127.0.0.1:{row.default_port}"
    try:
        async with httpx2.AsyncClient(trust_env=False, verify=trust(base), timeout=_LOCAL_S) as http:
            answer = await http.get(f"{base}/v1/models")
            if not _lists_models(answer) or judge(await http.get(f"{base}/readyz"))[0] != "something else":
                return []
    except (httpx2.HTTPError, ValueError):
        return []
    text = f"something answers at {base} as {row.name} would, and is not configured"
    return [Finding("note", "local", text, f"export {row.url_env[0]}={base}")]


def _lists_models(answer: httpx2.Response) -> bool:
    try:
        body = msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return answer.status_code == 200 and isinstance(body, dict) and isinstance(body.get("data"), list)
