"""What is measured: nginx, Upstack with and without receipts, and the providers they stand in front of."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import msgspec

from benchmarks.data_plane.procs import family, free_port, running
from upstack.application.gateway.auth import new_key

ANSWER = {
    "id": "chatcmpl-0123456789",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "bench",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "b" * 400}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300},
}
STREAM_GAP_S = 0.004  # between two events of the streaming provider


class Subject(msgspec.Struct, frozen=True):
    """Something under test, listening on `port`."""

    name: str
    does: str
    pid: int
    port: int
    path: str = "/v1/chat/completions"
    model: str = "bench/bench"
    headers: dict[str, str] = {}


def plain_provider(stack: contextlib.ExitStack, folder: Path) -> int:
    """Start an nginx that answers every request with the same completion; returns its port."""
    location = f"default_type application/json; return 200 '{json.dumps(ANSWER)}';"
    return _nginx(stack, folder, location, "")[1]


def streaming_provider(stack: contextlib.ExitStack, folder: Path, chunks: int) -> int:
    """Start a provider that streams so many events; returns its port."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.data_plane.upstream", str(port), str(chunks), str(STREAM_GAP_S)]
    stack.enter_context(running(command, port, log=folder / "provider.log"))
    return port


def nginx(stack: contextlib.ExitStack, folder: Path, provider: int) -> Subject:
    """A reverse proxy in front of the provider, without logs; it passes events of a stream as they come."""
    location = (
        'proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;'
    )
    pool = f"upstream provider {{ server 127.0.0.1:{provider}; keepalive 256; keepalive_requests 100000000; }}"
    pid, port = _nginx(stack, folder, location, pool)
    return Subject("nginx", "proxies bytes over a keep-alive pool, no logs", pid, port)


def upstack(stack: contextlib.ExitStack, folder: Path, provider: int, receipts: str) -> Subject:
    """Our gateway in front of the provider; with receipts also with a key that has a budget and a rate."""
    port = free_port()
    home = folder / f"upstack-{port}"
    home.mkdir()
    (home / "upstack.toml").write_text(
        f'[server]\nport = {port}\nreceipts = "{receipts}"\nledger = "{home}/upstack.db"\n'
        f'[providers.bench]\nbase_url = "http://127.0.0.1:{provider}/v1"\nauth = "none"\n'
        '[prices."bench/bench"]\ninput = 1.0\noutput = 2.0\n'
    )
    headers = {}
    if receipts == "required":
        key, digest = new_key()
        headers = {"authorization": f"Bearer {key}"}
        limits = "budget_usd = { day = 1000000 }\nrate = { requests_per_minute = 1000000000 }"
        with (home / "upstack.toml").open("a") as config:
            config.write(f'[keys.bench]\nhash = "{digest}"\n{limits}\n')
    env = {**os.environ, "PYTHONPATH": str(Path("src").resolve())}
    command = [sys.executable, "-m", "upstack.cli", "serve", "--config", str(home / "upstack.toml")]
    pid = stack.enter_context(running(command, port, env=env, log=home / "out.log"))
    if len(family(pid)) != 1 + (receipts == "required"):
        raise SystemExit("the gateway's processes are not what is counted: itself and, with receipts, their writer")
    kept = "no receipt"
    if receipts == "required":
        kept = "checks key, budget and rate, chained receipt durable before the answer's end"
    return Subject(f"upstack, receipts {receipts}", f"routes, watches, prices, {kept}", pid, port, headers=headers)


def _nginx(stack: contextlib.ExitStack, folder: Path, location: str, pool: str) -> tuple[int, int]:
    port = free_port()
    home = folder / f"nginx-{port}"
    home.mkdir()
    paths = " ".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (home / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; keepalive_requests 100000000; {paths}\n"
        f"{pool}\nserver {{ listen 127.0.0.1:{port} backlog=2048; location / {{ {location} }} }} }}\n"
    )
    command = ["nginx", "-p", str(home), "-c", str(home / "nginx.conf")]
    return stack.enter_context(running(command, port, log=home / "out.log")), port
