"""Peers measured beside us, where `make bench-peers` has installed them in environments of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from pathlib import Path

from benchmarks.data_plane.procs import free_port, running
from benchmarks.data_plane.subjects import Subject

PEERS = Path(".peers")


def installed(stack: contextlib.ExitStack, folder: Path, provider: int) -> list[Subject]:
    """Start each that is there, in front of the provider; one that is not is told and left out."""
    found = []
    for name, start in (("LiteLLM", _litellm), ("Portkey", _portkey)):
        subject = start(stack, folder, provider)
        if subject is None:
            print(f"{name} is not installed and left out: make bench-peers", file=sys.stderr)
        else:
            found.append(subject)
    return found


def _litellm(stack: contextlib.ExitStack, folder: Path, provider: int) -> Subject | None:
    program = PEERS / "litellm" / "bin" / "litellm"
    if not program.exists():
        return None
    port = free_port()
    config = folder / f"litellm-{port}.yaml"
    config.write_text(
        "model_list:\n- model_name: bench\n  litellm_params:\n    model: openai/bench\n"
        f"    api_base: http://127.0.0.1:{provider}/v1\n    api_key: unused\n"
    )
    command = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    log = folder / f"litellm-{port}.log"
    env = {**os.environ, "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}  # on loopback, without keys
    pid = stack.enter_context(running(command, port, env=env, log=log, path="/health/liveliness"))
    return Subject(
        "LiteLLM proxy", "one worker, no database, no keys, no logs: nothing is recorded", pid, port, model="bench"
    )


def _portkey(stack: contextlib.ExitStack, folder: Path, provider: int) -> Subject | None:
    start = PEERS / "portkey" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    node = shutil.which("node")
    if not start.exists() or node is None:
        return None
    port = free_port()
    command = [node, str(start), "--headless", f"--port={port}"]
    env = {**os.environ, "NODE_ENV": "production"}
    pid = stack.enter_context(running(command, port, env=env, log=folder / f"portkey-{port}.log"))
    host = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{provider}/v1"}
    return Subject(
        "Portkey gateway", "routes by headers, no logs: nothing is recorded", pid, port, model="bench", headers=host
    )
