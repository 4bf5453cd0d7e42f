"""A running gateway as its neighbours see it: is it there, what does it say, why did it refuse."""

from __future__ import annotations

import os
import ssl
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import msgspec

from upstack.core.errors import UpstackError
from upstack.foundation.upstream.origin import is_loopback

ADMIN = {"x-upstack-admin": "1"}
KEY_VARIABLE = "UPSTACK_API_KEY"
PROBE_S = 2.0  # a gateway on this machine answers in a millisecond
Found = Literal["ready", "not ready", "something else", "nothing"]


def own_key() -> dict[str, str]:
    """The header with the virtual key that the environment names; none without one."""
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return {"authorization": f"Bearer {key}"} if key else {}


def through_proxy(url: str) -> bool:
    """Say whether the environment's proxies may be used for `url`: never for loopback."""
    return not is_loopback(urlsplit(url).hostname or "")


def trust(base: str) -> ssl.SSLContext | bool:
    """What certificates are checked against: for plain HTTP nothing, as to read the system's takes 50 ms."""
    needed = base.lower().startswith("https:") or through_proxy(base)
    return True if needed else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client(base: str) -> httpx2.Client:
    """Give a client for the gateway at `base`."""
    return httpx2.Client(trust_env=through_proxy(base), verify=trust(base), timeout=PROBE_S, headers=own_key())


def look(base: str) -> tuple[Found, str]:
    """Find out what is at `base`, and in words what is wrong with it."""
    try:
        with client(base) as http:
            answer = http.get(f"{base}/readyz")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return "nothing", type(error).__name__
    return judge(answer)


def judge(answer: httpx2.Response) -> tuple[Found, str]:
    """Read the answer of /readyz: whether it is a gateway's, and what that says."""
    said = _object(answer.content)
    if not isinstance(said.get("ready"), bool) or not isinstance(said.get("reasons"), list):
        return "something else", f"HTTP {answer.status_code}"
    return ("ready", "") if said["ready"] else ("not ready", ", ".join(map(str, said["reasons"])))


def reason_of(error: BaseException) -> str:
    """Say why a connection failed: the system's own words where they are behind the error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno:  # asyncio puts words of its own in place of the system's
            return os.strerror(seen.errno) if seen.errno > 0 else str(seen.strerror)
        seen = seen.__cause__ or seen.__context__
    return str(error).partition("\n")[0] or type(error).__name__


def unreachable(base: str) -> UpstackError:
    """Build the error for a gateway that does not answer."""
    return UpstackError(f"no gateway answers at {base}; start one with `upstack serve`, or name another with --url")


def refusal(status: int, content: bytes) -> tuple[str, str | None]:
    """Read the message and the code of an error in the OpenAI shape."""
    error = _object(content).get("error")
    if not isinstance(error, dict):
        error = {}
    message, code = error.get("message"), error.get("code")
    return str(message) if message else f"HTTP {status}", code if isinstance(code, str) else None


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
