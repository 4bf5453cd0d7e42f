"""`upstack reload`: ask the running gateway to read its configuration again."""

from __future__ import annotations

from pathlib import Path

import httpx2

from upstack.application.client import ADMIN, client, refusal, unreachable
from upstack.cli.options import gateway_url
from upstack.cli.output import print_json, say
from upstack.core.errors import ConfigError, UpstackError


def run(url: str | None, config: Path | None, *, as_json: bool) -> None:
    """Print the new generation; ConfigError or UpstackError with the reason where the old configuration stays."""
    try:
        base = gateway_url(url, config)
    except ConfigError as error:
        if url is not None:
            raise
        raise ConfigError(f"the gateway keeps its old configuration: {error.message}") from None
    try:
        with client(base) as http:
            answer = http.post(f"{base}/admin/reload", headers=ADMIN, timeout=30)
    except httpx2.HTTPError:
        raise unreachable(base) from None
    if answer.status_code != 200:
        kind = ConfigError if answer.status_code == ConfigError.status else UpstackError
        message, code = refusal(answer.status_code, answer.content)
        raise kind(f"{base} keeps its old configuration: {message}", code=code)
    generation = answer.json().get("generation")
    if as_json:
        print_json({"reloaded": True, "generation": generation, "url": base})
    else:
        say(f"{base} has reloaded its configuration: generation {generation}.")
