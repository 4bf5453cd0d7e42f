"""The house's rules that no linter knows: what an import loads, what files name, that tests stay on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import pkgutil
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import uvloop

import upstack
from tests.conftest import NetworkRefusedError

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "tests", "benchmarks", "tools", "docs", ".ci")
HEAVY = {"anyio", "genai_prices", "httpx2", "multiprocessing", "prometheus_client", "pydantic", "rich", "sqlalchemy"}
HEAVY |= {"Crypto", "starlette", "typer", "uvicorn"}


def _modules() -> list[str]:
    return [found.name for found in pkgutil.walk_packages(upstack.__path__, "upstack.") if "__main__" not in found.name]


def _run(code: str) -> str:
    """Run `code` in a Python of its own; what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _loaded_by(names: list[str]) -> set[str]:
    return set(_run(f"import sys, {', '.join(names)}; print(*sys.modules)").split())


def test_importing_the_words_loads_nothing_heavy() -> None:
    """`upstack` and its types, errors and config cost little, an event loop or TLS included."""
    apart = ("upstack.core.store", "upstack.core.telemetry")
    names = [name for name in _modules() if name.startswith("upstack.core") and not name.startswith(apart)]
    assert not sorted((HEAVY | {"asyncio", "ssl"}) & _loaded_by(["upstack", *names]))


def test_importing_the_ledger_loads_nothing_heavy() -> None:
    """The writer process starts at once, and the gateway beside it: they need SQLite and msgspec alone."""
    modules = [f"upstack.core.store.{name}" for name in ("client", "ids", "reading", "writer", "sqlite", "lock")]
    assert not sorted((HEAVY | {"alembic", "psycopg"}) & _loaded_by(modules))


def test_asking_for_help_loads_no_server() -> None:
    """The command line loads what a command needs when it is called."""
    assert not sorted((HEAVY - {"rich", "typer"} | {"asyncio", "ssl"}) & _loaded_by(["upstack.cli"]))


def test_no_import_opens_a_socket_or_starts_a_process() -> None:
    """Importing any module of the package talks to nobody."""
    code = f"""
import importlib, sys
def hook(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.posix_spawn")):
        raise SystemExit(f"{{event}} {{arguments}} while importing {{name}}")
sys.addaudithook(hook)
for name in {_modules()!r}:
    importlib.import_module(name)
"""
    _run(code)


def test_public_names_exist() -> None:
    """`__all__` is where it exists a list of what can be imported."""
    for name in ["upstack", *_modules()]:
        module = importlib.import_module(name)
        public = list(getattr(module, "__all__", []))
        assert all(hasattr(module, each) for each in public), name


def test_no_file_names_a_place_of_one_machine() -> None:
    """Paths of somebody's machine and hosts of registries have no place in the project."""
    places = [
        "/" + "work/",
        "/" + "root/",
        "/" + "home/",
        "pypi" + ".org",
        "python" + "hosted.org",
        "registry" + ".npmjs",
    ]
    pattern = re.compile("|".join(map(re.escape, places)))
    files = [
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix != ".pyc" and path.is_file()
    ]
    files += [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith("upstack.db")]
    for path in files:
        text = path.read_bytes().decode("utf-8", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            assert not pattern.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_a_connection_beyond_loopback_is_refused(refusals: list[str]) -> None:
    """A plain socket cannot reach an address that is not this machine's."""
    with socket.socket() as plain, pytest.raises(NetworkRefusedError, match=r"192\.0\.2\.1:80"):
        plain.connect(("192.0.2.1", 80))
    refusals.clear()


def test_a_name_is_not_looked_up(refusals: list[str]) -> None:
    """A client library fails before the resolver is asked, and a swallowed refusal is remembered."""
    with pytest.raises(NetworkRefusedError, match=r"example\.com"):
        urllib.request.urlopen("http://example.com")
    assert refusals == ["look-up of example.com"]
    refusals.clear()


def test_a_name_under_invalid_is_unknown() -> None:
    """Names that never exist fail as they would anywhere, so tests may use them."""
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("no-such-host.invalid", 443)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_an_event_loop_is_refused_too(run: object, refusals: list[str]) -> None:
    """uvloop connects without Python's sockets, and is held back as well."""

    async def reach(host: str) -> None:
        await asyncio.get_running_loop().create_connection(asyncio.Protocol, host, 80)

    assert callable(run)
    for host in ("192.0.2.1", "example.com"):
        with pytest.raises(NetworkRefusedError, match=re.escape(host)):
            run(reach(host))
    refusals.clear()


def test_loopback_and_unix_sockets_are_open(tmp_path: Path) -> None:
    """Real servers on this machine are what the suite talks to."""
    places: list[tuple[socket.AddressFamily, tuple[str, int] | str]] = [
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_UNIX, str(tmp_path / "s")),
    ]
    for family, address in places:
        with contextlib.closing(socket.socket(family)) as server, contextlib.closing(socket.socket(family)) as client:
            server.bind(address)
            server.listen()
            client.connect(server.getsockname())
