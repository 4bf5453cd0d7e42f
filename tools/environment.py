"""Makes `.venv` from the locks, or does nothing where it is already what they say.

Run by the Makefile with the system's Python, so this file needs the standard library alone. An environment counts as
whole only when its stamp, written last, matches; any other is made anew, so an interrupted install leaves nothing half
good behind, and a package that left the lock leaves the environment too.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_TOOLS = ROOT / ".venv-tools"  # virtualenv, where the system's venv module does not work
STAMP = VENV / ".complete"
LOCK = ROOT / "requirements-dev.lock"
VENV_LOCK = ROOT / "requirements-venv.lock"
PYTHON = getattr(sys, "_base_executable", sys.executable)  # not the .venv that is about to be cleared
APT_LINE = "sudo apt-get install -y python3-venv python3-pip"


def main() -> int:
    """Leave a whole `.venv` behind, or say why not and what mends it."""
    with Path(__file__).open(encoding="utf-8") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two makes at once: the second waits, and finds it done
        wanted = _fingerprint()
        if _stamp() == wanted:
            return 0
        print(f"Installing {LOCK.name} into {VENV.name}/ ...", flush=True)
        STAMP.unlink(missing_ok=True)  # first, so that a clearing cut short cannot pass for whole
        shutil.rmtree(VENV, ignore_errors=True)
        if not (_make_with_venv() or _make_with_virtualenv()):
            shutil.rmtree(VENV, ignore_errors=True)
            print(
                f"\n{PYTHON} can make no virtual environment: neither its venv module nor pip works.\n"
                f"This mends it on Debian and Ubuntu:\n\n    {APT_LINE}\n",
                file=sys.stderr,
            )
            return 1
        if not _install():
            print("\nThe install failed: see above. Run make again to start it afresh.", file=sys.stderr)
            return 1
        STAMP.write_text(wanted, encoding="utf-8")
    return 0


def _fingerprint() -> str:
    """What the environment depends on: the locks, the project's metadata, the interpreter, and where it lies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = [
        LOCK.read_text(encoding="utf-8"),
        json.dumps([project["project"], project["build-system"]], sort_keys=True),
        sys.version,
        str(VENV),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _stamp() -> str | None:
    try:
        return STAMP.read_text(encoding="utf-8")
    except OSError:
        return None


def _make_with_venv() -> bool:
    """Debian splits the module: without python3-venv it is there, but cannot bring pip."""
    if importlib.util.find_spec("ensurepip") is None:
        return False
    return _run([PYTHON, "-m", "venv", "--clear", str(VENV)], quiet=True)


def _make_with_virtualenv() -> bool:
    """`--target` leaves the system's packages alone, so pip does not refuse (PEP 668)."""
    print("The system's venv module does not work: using virtualenv.", flush=True)
    if not _run([PYTHON, *_pip_install(VENV_LOCK), "--target", str(VENV_TOOLS), "--upgrade"]):
        return False
    command = [PYTHON, "-m", "virtualenv", "--quiet", "--no-download", "--no-periodic-update", str(VENV)]
    # Its copies of pip stay in the checkout: it would put them into the user's home.
    return _run(command, PYTHONPATH=str(VENV_TOOLS), VIRTUALENV_OVERRIDE_APP_DATA=str(VENV_TOOLS / "app-data"))


def _install() -> bool:
    python = str(VENV / "bin" / "python")
    # No build isolation: hatchling, which builds the project, is pinned in the lock like everything else.
    project = ["-m", "pip", "install", "-qq", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    return _run([python, *_pip_install(LOCK)]) and _run([python, *project])


def _pip_install(lock: Path) -> list[str]:
    return ["-m", "pip", "install", "-qq", "--no-deps", "--no-compile", "--require-hashes", "--requirement", str(lock)]


def _run(command: list[str], *, quiet: bool = False, **environment: str) -> bool:
    """Run `command`; whether it succeeded. `quiet` hides its complaints, as another way follows."""
    settings = {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_ROOT_USER_ACTION": "ignore",
    }
    output = subprocess.DEVNULL if quiet else None
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **settings, **environment}, stdout=output, stderr=output, check=False
    )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
