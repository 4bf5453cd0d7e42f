"""Checks the locks against pyproject.toml and the budget of the runtime install; `--lock` writes them anew.

`requirements.lock` holds what `pip install upstack` brings; `requirements-dev.lock` that and the dev group;
`requirements-venv.lock` virtualenv, for systems whose own venv module does not work.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {
    "requirements.lock": ["pyproject.toml"],
    "requirements-dev.lock": ["pyproject.toml", "--group", "dev"],
    "requirements-venv.lock": ["--group", "venv"],
}
_FOREIGN = re.compile(r"https?:|file:|--find-links|--index-url|--extra-index-url| @ |(?<!#) /", re.IGNORECASE)


def main(arguments: list[str]) -> int:
    """Print what is wrong, or the size of the runtime install; 1 where anything is wrong."""
    if arguments[:1] == ["--lock"]:
        return write_locks(arguments[1:])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locks = {name: (ROOT / name).read_text(encoding="utf-8") for name in LOCKS}
    wrong = [line for name, text in locks.items() for line in check_lock(name, text)]
    wrong += check_pins(project, locks)
    wrong += check_imports(project)
    runtime = [pin.name for pin in _pins(locks["requirements.lock"]) if _applies(pin)]
    size = sum(_size(name) for name in runtime) / 1e6
    budget = project["tool"]["dependency_budget"]
    if len(runtime) > budget["packages"] or size > budget["megabytes"]:
        wrong.append(
            f"Over the budget of the runtime install: {budget['packages']} packages, {budget['megabytes']} MB."
        )
    print("\n".join([*wrong, f"Runtime install: {len(runtime)} packages, {size:.0f} MB."]))
    return 1 if wrong else 0


def write_locks(options: list[str]) -> int:
    """Resolve each lock for every platform and Python from 3.11 on, with hashes; pins stay unless told `--upgrade`.

    The registry asked is the public one: settings of this machine would bring files that others cannot get.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    command = ["uv", "pip", "compile", "--quiet", "--no-config", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--custom-compile-command", "make lock", *options]
    for name, sources in LOCKS.items():
        print(f"Writing {name} ...", flush=True)
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([str(uv), *command[1:], *sources, "-o", name], cwd=ROOT, env=environment, check=True)
    return 0


def check_lock(name: str, text: str) -> Iterator[str]:
    """A lock names no host and no path, and every pin has a hash."""
    for number, line in enumerate(text.splitlines(), 1):
        if _FOREIGN.search(line):
            yield f"{name}:{number}: names a place, which others cannot reach: {line.strip()}"
    entries = re.split(r"\n(?=[A-Za-z0-9])", text)
    for entry in entries:
        if "==" in entry and "--hash=sha256:" not in entry:
            yield f"{name}: {entry.split(maxsplit=1)[0]} has no hash"


def check_pins(project: dict[str, Any], locks: dict[str, str]) -> Iterator[str]:
    """Every direct dependency is in its lock, in a version that pyproject.toml allows."""
    groups = project["dependency-groups"]
    runtime = project["project"]["dependencies"]
    wanted = {
        "requirements.lock": runtime,
        "requirements-dev.lock": runtime + groups["dev"],
        "requirements-venv.lock": groups["venv"],
    }
    for name, requirements in wanted.items():
        pinned = {pin.name: next(iter(pin.specifier)).version for pin in _pins(locks[name])}
        for requirement in map(Requirement, requirements):
            version = pinned.get(canonicalize_name(requirement.name))
            if version is None or version not in requirement.specifier:
                yield f"{name}: pyproject.toml wants {requirement}, the lock has {version}: run make lock"


def check_imports(project: dict[str, Any]) -> Iterator[str]:
    """What the package imports is what it declares, in its dependencies or an extra."""
    extras = project["project"].get("optional-dependencies", {})
    declared = [*project["project"]["dependencies"], *(line for extra in extras.values() for line in extra)]
    names = {canonicalize_name(Requirement(line).name) for line in declared}
    providers = importlib.metadata.packages_distributions()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for module, line in _imports(path):
            owners = {canonicalize_name(owner) for owner in providers.get(module, [])}
            if module != "upstack" and module not in sys.stdlib_module_names and not owners & names:
                where = f"{path.relative_to(ROOT)}:{line}"
                yield f"{where}: imports {module}, which neither the dependencies nor an extra declare"


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def _pins(text: str) -> list[Requirement]:
    lines = (line.removesuffix("\\").strip() for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line))
    return [Requirement(line) for line in lines]


def _applies(pin: Requirement) -> bool:
    return pin.marker is None or pin.marker.evaluate()


def _size(name: str) -> int:
    """Bytes that a distribution takes on disk, its compiled files included."""
    files = importlib.metadata.files(name) or []
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
