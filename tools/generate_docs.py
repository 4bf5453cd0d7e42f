"""Writes docs/reference/*.md from the code; `--check` says which of them is stale.

A page is made from what runs: the structs of core/config with the comments beside their fields, the error tree, the
command line's own help, the catalogue of providers, the table of metrics.
"""

from __future__ import annotations

import ast
import inspect
import io
import sys
import tokenize
import tomllib
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import typer

from upstack import cli
from upstack.application.gateway import exposition
from upstack.core import config, errors
from upstack.foundation import catalog

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
MARK = "<!-- Written by tools/generate_docs.py (`make docs`) from the code: change it there. -->"


def main(arguments: list[str]) -> int:
    """Write every page, or with `--check` compare; 1 where one is stale."""
    pages = {name: f"{MARK}\n\n{make().strip()}\n" for name, make in PAGES.items()}
    if "--check" in arguments:
        stale = [name for name, text in pages.items() if _read(REFERENCE / name) != text]
        for name in stale:
            print(f"{(REFERENCE / name).relative_to(ROOT)} is stale: run make docs")
        if not stale:
            print(f"Generated docs: {len(pages)} pages, none stale.")
        return 1 if stale else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped, a line break becomes a blank."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _comments(module: types.ModuleType) -> dict[int, str]:
    """The comment that ends each line, by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(inspect.getsource(module)).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _members(module: types.ModuleType, name: str) -> dict[str, str]:
    """Fields or members of class `name` with the comment beside each."""
    comments = _comments(module)
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign | ast.Assign):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name):
                found[target.id] = comments.get(node.end_lineno or node.lineno, "")
    return found


# ------------------------------------------------------------------------------------------------------------ config.md


def config_page() -> str:
    """Every table of upstack.toml and every key of it."""
    _, _, rules = (inspect.getdoc(config) or "").partition("\n\n")  # the first paragraph is for developers
    return "\n\n".join([f"# upstack.toml\n\n{rules}", *_config_tables(config.Config, "")])


def _config_tables(struct: type[msgspec.Struct], path: str) -> Iterator[str]:
    """One section a table, the tables inside it after it."""
    comments = _members(sys.modules[struct.__module__], struct.__name__)
    rows, inner = [], []
    for field in msgspec.structs.fields(struct):
        child, many = _child(field.type)
        if child is not None:
            below = f"{path}.{field.name}" if path else field.name
            inner.append((child, f"{below}.NAME" if many else below, comments[field.name]))
            continue
        rows.append([f"`{field.name}`", _type(field.type), _default(field), comments[field.name]])
    if rows:
        title = f"## `[{path}]`\n\n{inspect.getdoc(struct)}"
        yield f"{title}\n\n{_table(['key', 'type', 'default', 'meaning'], rows)}"
    for child, below, comment in inner:
        first, *rest = _config_tables(child, below)
        yield f"{first}\n\n`NAME`: {comment}." if comment else first
        yield from rest


def _child(annotation: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """The struct behind a key that is a table, and whether it is one table a name."""
    if typing.get_origin(annotation) is dict:
        return _child(typing.get_args(annotation)[1])[0], True
    is_struct = isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)
    return (annotation if is_struct else None), False


_TOML_TYPES = {str: "string", int: "whole number", float: "number", bool: "boolean"}


def _type(annotation: Any) -> str:
    """The type in TOML's words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{_json(value)}`" for value in arguments)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_type(part) for part in arguments if part is not types.NoneType)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return "table"
    if origin in {tuple, list}:
        return f"list of {_type(arguments[0])}s"
    return _TOML_TYPES.get(annotation, str(annotation))


def _default(field: msgspec.structs.FieldInfo) -> str:
    default = field.default
    if default is msgspec.NODEFAULT:
        made = field.default_factory
        default = None if made is msgspec.NODEFAULT else made()
        if default is None:
            return "required"
    return "none" if default is None else f"`{_json(default)}`"


# ------------------------------------------------------------------------------------------------------------ errors.md


def errors_page() -> str:
    """The tree, each class with its status and code, every code that is raised, and how attempts fail."""
    tree = inspect.getdoc(errors) or ""
    classes = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.UpstackError) and value.__module__ == errors.__name__
    ]
    kinds = [
        [f"`{kind.__name__}`", str(kind.status), f"`{kind.type}`", f"`{kind.code}`", inspect.getdoc(kind) or ""]
        for kind in classes
    ]
    raised = {row for path in (ROOT / "src").rglob("*.py") for row in _raised_codes(path)}
    codes = [[f"`{code}`", f"`{kind}`", status] for code, kind, status in sorted(raised)]
    failures = _members(errors, "Failure")
    ways = [[f"`{failure.value}`", failures[failure.name]] for failure in errors.Failure]
    head, _, drawing = tree.partition("\n\n")
    drawing, _, rest = drawing.partition("\n\n")
    parts = [
        f"# Errors\n\n{head}\n\n```text\n{inspect.cleandoc(drawing)}\n```\n\n{rest}",
        f"## Kinds\n\n{_table(['error', 'status', 'type', 'code', 'meaning'], kinds)}",
    ]
    if codes:
        lead = "Where an error says more than its kind."
        parts.append(f"## Codes of their own\n\n{lead}\n\n{_table(['code', 'error', 'status'], codes)}")
    lead = "In receipts, metrics and the `code` of the error that a caller sees when no route is left."
    parts.append(f"## How an attempt fails\n\n{lead}\n\n{_table(['failure', 'meaning'], ways)}")
    return "\n\n".join(parts)


def _raised_codes(path: Path) -> Iterator[tuple[str, str, str]]:
    """Code, error and status of each `SomethingError(..., code="literal")` in one file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        kind = getattr(errors, node.func.id, None)
        if isinstance(kind, type) and issubclass(kind, errors.UpstackError):
            given = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            if "code" in given:
                yield str(given["code"]), kind.__name__, str(given.get("status", kind.status))


# --------------------------------------------------------------------------------------------------------------- cli.md


def cli_page() -> str:
    """Every command's help, as the command line itself knows it."""
    return "\n\n".join(["# The command line", *_commands(typer.main.get_command(cli.app), "upstack")])


def _commands(command: Any, name: str) -> Iterator[str]:
    """One section a command; a group's own commands follow it."""
    if getattr(command, "hidden", False):
        return
    children = getattr(command, "commands", {})
    arguments = [part for part in command.params if part.param_type_name == "argument"]
    options = [part for part in command.params if part.param_type_name == "option" and not part.hidden]
    usage = [name, *(["[OPTIONS]"] if options else []), *(part.make_metavar(_context(command)) for part in arguments)]
    line = " ".join([*usage, *(["COMMAND"] if children else [])])
    parts = [f"## `{name}`", inspect.cleandoc(command.help or ""), f"    {line}"]
    rows = [[f"`{part.name.upper()}`", _presence(part), getattr(part, "help", "") or ""] for part in arguments]
    rows += [[_flags(option), _presence(option), option.help or ""] for option in options]
    if rows:
        parts.append(_table(["parameter", "default", "meaning"], rows))
    yield "\n\n".join(part for part in parts if part)
    for child, below in sorted(children.items()):
        yield from _commands(below, f"{name} {child}")


def _context(command: Any) -> Any:
    return command.context_class(command)


def _flags(option: Any) -> str:
    spellings = ", ".join([*sorted(option.opts, key=len), *option.secondary_opts])
    return f"`{spellings}`" if option.is_flag else f"`{spellings} {option.type.name.upper()}`"


def _presence(part: Any) -> str:
    """Its default, or that it must be there."""
    if part.required:
        return "required"
    if part.default is None or part.default is False or callable(part.default):
        return ""
    return f"`{part.default}`"


# --------------------------------------------------------------------------------------------- providers.md, metrics.md


def providers_page() -> str:
    """The catalogue's rows, and what each key of a row means."""
    rows = tomllib.loads((ROOT / "src" / "upstack" / "foundation" / "providers.toml").read_text(encoding="utf-8"))
    shown = ("source", "base_url", "key_env", "url_env", "unsupported")
    able, unable = [], []
    for name, row in sorted(rows.items()):
        link = f"[{name}]({row['source']})"
        found = ", ".join(f"`{variable}`" for variable in row.get("key_env", []) + row.get("url_env", []))
        rest = ", ".join(f"`{key} = {_json(value)}`" for key, value in row.items() if key not in shown)
        if "unsupported" in row:
            unable.append([link, found, row["unsupported"]])
        else:
            able.append([link, f"`{row['base_url']}`" if "base_url" in row else "", found, rest])
    keys = [[f"`{key}`", meaning] for key, meaning in _members(catalog, "Row").items() if meaning]
    lead = "What a provider is without a line of configuration: it is there where a variable of its row is set."
    return "\n\n".join(
        [
            f"# Providers\n\n{lead}",
            _table(["name", "URL", "found by", "also"], able),
            f"## Known, and not supported yet\n\n{_table(['name', 'found by', 'why'], unable)}",
            f"## What the keys mean\n\n{_table(['key', 'meaning'], keys)}",
        ]
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def metrics_page() -> str:
    """What /metrics exposes."""
    rows = [[f"`{name}`", kind, meaning] for name, kind, meaning in exposition.METRICS]
    return f"# Metrics\n\nWhat `/metrics` exposes.\n\n{_table(['name', 'type', 'meaning'], rows)}"


PAGES: dict[str, Callable[[], str]] = {
    "config.md": config_page,
    "errors.md": errors_page,
    "cli.md": cli_page,
    "providers.md": providers_page,
    "metrics.md": metrics_page,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
