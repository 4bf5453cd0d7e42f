"""What every test stands on: no connection leaves this machine, and recorded data is there or its tests say why not."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.canaries import files_with_secrets
from tests.postgres import PostgresServer, binaries

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background; what tests start inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)


class NetworkRefusedError(AssertionError):
    """A test reached for the network."""


_LOCAL_NAMES = {None, "", "localhost", socket.gethostname()}


def _is_local(host: str | None) -> bool:
    """Whether nothing sent to `host` leaves the machine."""
    if host in _LOCAL_NAMES:
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _text(host: Any) -> Any:
    return host.decode("ascii", "replace") if isinstance(host, bytes) else host


@pytest.fixture(scope="session", autouse=True)
def refusals() -> Iterator[list[str]]:
    """Refuse every connection but to loopback, and every look-up of a name, for the whole run; what was refused."""
    refused: list[str] = []

    def refuse(what: str) -> NetworkRefusedError:
        refused.append(what)
        return NetworkRefusedError(f"{what}: tests talk to loopback alone")

    def check_lookup(host: Any) -> None:
        host = _text(host)
        if _is_local(host) or _is_literal(host):
            return  # nothing is sent
        if host.endswith(".invalid"):  # RFC 6761: no such name ever, so the answer needs no network
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        raise refuse(f"look-up of {host}")

    def connecting(real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(self: socket.socket, *arguments: Any) -> Any:
            address = arguments[-1]
            if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_local(_text(address[0])):
                raise refuse(f"connection to {address[0]}:{address[1]}")
            return real(self, *arguments)

        return guarded

    def looking_up(real: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(host: Any, *arguments: Any, **options: Any) -> Any:
            check_lookup(host)
            return real(host, *arguments, **options)

        return guarded

    class GuardedLoop(uvloop.Loop):
        """uvloop connects and looks up without Python's socket module."""

        async def create_connection(  # type: ignore[override] # its overloads say no more about host and port
            self, factory: Any, host: Any = None, port: Any = None, **options: Any
        ) -> Any:
            if host is not None and not _is_local(_text(host)):
                check_lookup(host)
                raise refuse(f"connection to {host}:{port}")
            return await super().create_connection(factory, host, port, **options)

        async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
            check_lookup(host)
            return await super().getaddrinfo(host, port, **options)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, connecting(getattr(socket.socket, name)))
        for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
            patch.setattr(socket, name, looking_up(getattr(socket, name)))
        patch.setattr(uvloop, "Loop", GuardedLoop)  # what uvloop.new_event_loop and uvloop.run make
        yield refused


@pytest.fixture(autouse=True)
def _no_network(refusals: list[str]) -> Iterator[None]:
    """Fail a test whose code swallowed the refusal."""
    refusals.clear()
    yield
    if refusals:
        found = ", ".join(dict.fromkeys(refusals))
        refusals.clear()
        pytest.fail(f"This test reached for the network: {found}.", pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _no_secret_is_written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a run that left a secret in a log, a ledger, an export or any other file."""
    yield
    found = files_with_secrets(tmp_path_factory.getbasetemp())
    if found:
        pytest.fail("A secret was written to " + ", ".join(map(str, found[:5])), pytrace=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the run; without one installed the test is skipped."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: sudo apt-get install -y postgresql")
    server = PostgresServer(programs)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of recorded data that UPSTACK_DATA names; without it the test is skipped."""
    named = os.environ.get("UPSTACK_DATA")
    if not named:
        pytest.skip("UPSTACK_DATA is not set: it names the folder of recorded data")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"UPSTACK_DATA names {folder}, which is not a folder")
    return folder
