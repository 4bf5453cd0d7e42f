"""Everything the doctor looks at, in the order in which it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from upstack.application.doctor.bypasses import bypasses
from upstack.application.doctor.finding import Finding
from upstack.application.doctor.ledger import ledger
from upstack.application.doctor.settings import found_providers, read_settings, unknown_prices
from upstack.foundation.upstream.origin import authority


def examine(path: Path | None, environ: Mapping[str, str], *, offline: bool) -> list[Finding]:
    """Look at configuration, providers, prices, ledger, connections (unless `offline`) and clients' settings."""
    settings, findings = read_settings(path, environ)
    server = settings.config.server
    base = f"http://{authority(server.host, server.port)}"
    findings += found_providers(settings, environ)
    findings += unknown_prices(settings)
    findings += ledger(server)
    if not offline:
        from upstack.application.doctor.reach import reach  # noqa: PLC0415 - an HTTP client takes a tenth of a second

        findings += asyncio.run(reach(settings, base))
    findings += bypasses(environ, base)
    return findings
