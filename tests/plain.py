"""HTTP calls to this machine. A client of its own for each takes 50 ms to read certificates that nobody shows."""

from __future__ import annotations

import ssl
from functools import partial

import httpx2

_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

get = partial(httpx2.get, verify=_NO_CERTIFICATES)
post = partial(httpx2.post, verify=_NO_CERTIFICATES)
stream = partial(httpx2.stream, verify=_NO_CERTIFICATES)
request = partial(httpx2.request, verify=_NO_CERTIFICATES)
client = partial(httpx2.Client, verify=_NO_CERTIFICATES)
async_client = partial(httpx2.AsyncClient, verify=_NO_CERTIFICATES)
