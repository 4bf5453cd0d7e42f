"""`upstack keys`: makes virtual keys, and says what each may do and has spent."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from upstack.application.gateway.auth import new_key
from upstack.application.gateway.explain import usd
from upstack.cli.options import config_path, ledger_of, read
from upstack.cli.output import Name, new_table, print_json, say, show
from upstack.core.config import NAME, BudgetConfig, KeyConfig, RateConfig
from upstack.core.errors import ConfigError, LedgerError
from upstack.core.store.reading import spent_by
from upstack.core.store.spending import NOTHING_SPENT, Spent


def make(
    name: str,
    role: str,
    team: str | None,
    budget_day: float | None,
    requests_per_minute: int | None,
    config: Path | None,
    *,
    write: bool,
    as_json: bool,
) -> None:
    """Make a key and print it with the table that the configuration takes."""
    if not re.fullmatch(NAME, name):
        raise ConfigError(f'"{name}": a name has letters, digits and . _ : - only')
    if name in read(config).keys:
        raise ConfigError(f"there is a key {name} already; `upstack keys rotate {name}` replaces it")
    key, digest = new_key()
    lines = [f"[keys.{_quoted(name)}]", f'hash = "{digest}"']
    lines += [f'role = "{role}"'] if role != "app" else []
    lines += [f"team = {_text(team)}"] if team is not None else []
    lines += [f"budget_usd = {{ day = {budget_day} }}"] if budget_day is not None else []
    lines += [f"rate = {{ requests_per_minute = {requests_per_minute} }}"] if requests_per_minute is not None else []
    table = "\n".join(lines) + "\n"
    path = _append(table, config) if write else None
    _tell(name, key, table, path, as_json=as_json)


def replace_key(name: str, overlap: float, config: Path | None, *, write: bool, as_json: bool) -> None:
    """Make a new key for `name`; the old one is good for `overlap` more hours."""
    keys = read(config).keys
    if name not in keys:
        raise ConfigError(f'there is no key "{name}"; `upstack keys new {name}` makes one')
    key, digest = new_key()
    until = (datetime.now(UTC) + timedelta(hours=overlap)).strftime("%Y-%m-%dT%H:%M:%SZ")
    table = f'hash = "{digest}"\nold_hash = "{keys[name].hash}"\nold_until = {until}\n'
    path = _substitute(name, keys[name], table, config) if write else None
    _tell(name, key, f"[keys.{_quoted(name)}]\n{table}", path, as_json=as_json)


def show_keys(config: Path | None, ledger: str | None, *, as_json: bool) -> None:
    """Print a table, or JSON, of all keys; what was spent where there is a ledger."""
    keys = read(config).keys
    try:
        spent = spent_by(ledger_of(ledger, config), time.time())
    except LedgerError:
        spent = {}
    if as_json:
        print_json({name: _as_json(key, spent.get(f"key/{name}", NOTHING_SPENT)) for name, key in keys.items()})
        return
    if not keys:
        say("There are no keys: everybody on this machine is served. `upstack keys new NAME` makes one.")
        return
    table = new_table("key", "role", "team", "may ask for", "budget", "rate", "today", "this month", "expires")
    for name, key in keys.items():
        row = spent.get(f"key/{name}", NOTHING_SPENT)
        table.add_row(
            Name(name),
            key.role,
            key.team or "",
            Name(*[f"task/{task}" for task in key.tasks], *key.routes) if key.tasks or key.routes else "anything",
            _limits(key.budget_usd),
            _limits(key.rate),
            f"${usd(row.day)}",
            f"${usd(row.month)}",
            "" if key.expires is None else key.expires.strftime("%Y-%m-%d %H:%M"),
        )
    show(table)


def _limits(limits: BudgetConfig | RateConfig) -> str:
    given = {name: value for name, value in msgspec.structs.asdict(limits).items() if value is not None}
    dollar = "$" if isinstance(limits, BudgetConfig) else ""
    return ", ".join(f"{dollar}{value:g} {name.replace('_', ' ')}" for name, value in given.items()) or "none"


def _as_json(key: KeyConfig, spent: Spent) -> dict[str, Any]:
    table: dict[str, Any] = msgspec.to_builtins(key)
    return {
        **{name: value for name, value in table.items() if not name.endswith("hash")},
        "spent_usd": {"day": usd(spent.day), "month": usd(spent.month), "total": usd(spent.total)},
    }


def _tell(name: str, key: str, table: str, path: Path | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "key": key, "toml": table, "written_to": None if path is None else str(path)})
        return
    say(f"The key {name}, which is shown this once:", style="dim", stderr=True)
    print(key)
    if path is not None:
        say(f"{path} has its hash. A running gateway takes it within a second.", style="dim", stderr=True)
    else:
        say("The configuration takes its hash (--write puts it there):\n", style="dim", stderr=True)
        say(table, stderr=True)


def _path(config: Path | None) -> Path:
    return config_path(config) or Path("upstack.toml")


def _append(table: str, config: Path | None) -> Path:
    path = _path(config)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    _write(path, f"{before}{gap}{table}")
    return path


def _substitute(name: str, key: KeyConfig, lines: str, config: Path | None) -> Path:
    """Put `lines` in the place of the hash of a key, and take out those of the key before it."""
    path = _path(config)
    text = path.read_text(encoding="utf-8")
    here = _line_of("hash", key.hash)
    if len(here.findall(text)) != 1:
        raise ConfigError(f"{path}: keys.{name}.hash does not stand on a line of its own; change it by hand")
    if key.old_hash is not None:
        text = _line_of("old_hash", key.old_hash).sub("", text)
    start = here.search(text)
    assert start is not None  # noqa: S101 - counted above
    head, tail = text[: start.start()], text[start.end() :]
    end = re.search(r"^[ \t]*\[", tail, re.MULTILINE)
    own, rest = (tail[: end.start()], tail[end.start() :]) if end is not None else (tail, "")
    own = re.sub(r"^[ \t]*old_until[ \t]*=[^\n]*\n?", "", own, flags=re.MULTILINE)
    _write(path, f"{head}{lines}{own}{rest}")
    return path


def _line_of(name: str, digest: str) -> re.Pattern[str]:
    return re.compile(rf"""^[ \t]*{name}[ \t]*=[ \t]*["']{re.escape(digest)}["'][^\n]*\n?""", re.MULTILINE)


def _write(path: Path, text: str) -> None:
    """Replace the file as a whole, once it has been seen to be a configuration; its mode stays."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    try:
        if path.exists():
            draft.chmod(path.stat().st_mode & 0o777)
        read(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def _text(value: str) -> str:
    return msgspec.json.encode(value).decode()
