"""Settings of this environment that lead clients past the gateway, or keep them from it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from upstack.application.doctor.finding import Finding
from upstack.core.errors import SupplyError
from upstack.foundation.upstream.origin import is_loopback
from upstack.foundation.upstream.proxies import Proxies

_TOPIC = "clients"
_OPENAI = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def bypasses(environ: Mapping[str, str], base: str) -> Iterator[Finding]:
    """Look at what SDKs read; `base` is where the gateway listens."""
    yield from _openai(environ, base)
    yield from _other_sdks(environ, base)
    yield from _proxies(environ, base)


def _openai(environ: Mapping[str, str], base: str) -> Iterator[Finding]:
    remedy = f"export OPENAI_BASE_URL={base}/v1"
    names = [name for name in _OPENAI if environ.get(name, "").strip()]
    if not names:
        text = "OPENAI_BASE_URL is not set: OpenAI clients started here go to api.openai.com, past the gateway"
        yield Finding("note", _TOPIC, text, remedy)
    for name in names:
        value = environ[name].strip()
        if not _same_place(value, base):
            text = f"{name} points to {_host(value)}: OpenAI clients started here go past the gateway"
            yield Finding("note", _TOPIC, text, remedy)
        elif not value.rstrip("/").endswith("/v1"):
            yield Finding("problem", _TOPIC, f"{name} points to the gateway, but does not end in /v1", remedy)
        else:
            yield Finding("ok", _TOPIC, f"{name} points to the gateway")


def _other_sdks(environ: Mapping[str, str], base: str) -> Iterator[Finding]:
    remedy = f"use an OpenAI client with base_url {base}/v1 and the model's full name here"
    if environ.get("ANTHROPIC_BASE_URL", "").strip() or environ.get("ANTHROPIC_API_KEY", "").strip():
        name = "ANTHROPIC_BASE_URL" if environ.get("ANTHROPIC_BASE_URL", "").strip() else "ANTHROPIC_API_KEY"
        text = f"{name} is set: Anthropic's SDK speaks the messages dialect, not served yet, and goes past the gateway"
        yield Finding("note", _TOPIC, text, remedy)
    if environ.get("AZURE_OPENAI_ENDPOINT", "").strip():
        text = "AZURE_OPENAI_ENDPOINT is set: AzureOpenAI clients go there, past the gateway"
        yield Finding("note", _TOPIC, text, remedy)
    litellm = sorted(name for name in environ if name.startswith("LITELLM_") and environ[name].strip())
    if litellm:
        text = f"LiteLLM is set up here ({', '.join(litellm)}): its calls go past the gateway"
        yield Finding("note", _TOPIC, text, remedy)


def _proxies(environ: Mapping[str, str], base: str) -> Iterator[Finding]:
    names = [name for name in _PROXIES if environ.get(name) or environ.get(name.lower())]
    if not names:
        return
    host = urlsplit(base).hostname or ""
    try:
        proxy = Proxies(environ).find("https", "provider.invalid", 443)
    except SupplyError as error:
        yield Finding("problem", "proxy", error.message, "set HTTPS_PROXY=http://HOST:PORT")
    else:
        if proxy is not None:
            yield Finding("ok", "proxy", f"providers are called through {proxy.where}; local ones directly")
    listed = environ.get("no_proxy", environ.get("NO_PROXY", ""))
    if not any(_covers(entry.strip(), host) for entry in listed.split(",")):
        text = f"{', '.join(names)} set, and NO_PROXY does not name {host}: clients may send our calls to the proxy"
        yield Finding("note", "proxy", text, f"export NO_PROXY={','.join(filter(None, [listed, host, 'localhost']))}")


def _covers(entry: str, host: str) -> bool:
    if entry in {"*", host}:
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _same_place(value: str, base: str) -> bool:
    """Whether both name the same port of the same machine."""
    try:
        one, other = urlsplit(value), urlsplit(base)
        if one.port != other.port:
            return False
    except ValueError:
        return False
    hosts = (one.hostname or "", other.hostname or "")
    return hosts[0] == hosts[1] or all(is_loopback(host) for host in hosts)


def _host(value: str) -> str:
    """The host alone: a URL may hold a password."""
    try:
        return urlsplit(value).hostname or "what is no URL"
    except ValueError:
        return "what is no URL"
