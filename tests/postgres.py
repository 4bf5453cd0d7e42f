"""A PostgreSQL server of the suite's own, from Debian's binaries: nothing of the machine's is touched."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from upstack.core.store.migrate import migrate

_ROOTS = (Path("/usr/lib/postgresql"), Path("/usr/pgsql"))


def binaries() -> Path | None:
    """The folder of the newest PostgreSQL that is installed."""
    found = [path.parent for root in _ROOTS for path in root.glob("*/bin/postgres")]
    if not found and (on_path := shutil.which("postgres")):
        return Path(on_path).parent
    return max(found, key=lambda path: int("".join(filter(str.isdigit, path.parent.name)) or 0), default=None)


class PostgresServer:
    """A server on loopback. It must not run as root, so that where we are root another user runs it."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user = _other_user() if os.geteuid() == 0 else {}
        self._folder = Path(tempfile.mkdtemp(prefix="upstack-postgres-"))
        if self._user:
            shutil.chown(self._folder, self._user["user"], self._user["group"])
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._ledger: str | None = None  # where the tables are made, once
        self._names = map("ledger{}".format, itertools.count())
        self._run(
            "initdb", "-D", "data", "-U", "upstack", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"
        )
        self.start()

    def start(self) -> None:
        """Start the server, also after `kill`, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-w", "-t", "60", "-l", "log", "-o", options, "start")

    def kill(self) -> None:
        """Kill all of it at once, as a power cut would."""
        postmaster = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(["pgrep", "-P", str(postmaster)], capture_output=True, text=True, check=False)
        for process in (postmaster, *map(int, children.stdout.split())):
            os.kill(process, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while Path(f"/proc/{postmaster}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> None:
        """End it and remove what it had."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        return self._make("template1")

    def new_ledger(self) -> str:
        """Make a database that has the ledger's tables, and return its URL."""
        if self._ledger is None:
            self._ledger = self._make("template1")
            migrate(self._ledger)
        return self._make(self._ledger.rpartition("/")[2])

    def _make(self, template: str) -> str:
        name = next(self._names)
        with psycopg.connect(self.url("postgres"), autocommit=True) as database:
            database.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return self.url(name)

    def url(self, database: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://upstack@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        # what pg_ctl starts would hold a pipe open
        with (self._folder.parent / f"{self._folder.name}.out").open("w+") as out:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                check=False,
                start_new_session=True,
                **self._user,
            )
            out.seek(0)
            said = out.read()
        Path(out.name).unlink()
        if check and done.returncode:
            raise RuntimeError(f"{program}: {said}")


def _other_user() -> dict[str, Any]:
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise RuntimeError("PostgreSQL does not run as root, and there is no other user to run it")


def ask(url: str, query: str) -> list[Any]:
    """Ask a database, as any program could."""
    with psycopg.connect(url, autocommit=True) as database:
        return database.execute(query.encode()).fetchall()
