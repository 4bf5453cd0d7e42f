"""Checks that files, functions and parameter lists stay as short as `[tool.line_budget]` in pyproject.toml says."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> int:
    """Print what is over the budget; 1 where anything is."""
    budget = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["line_budget"]
    files = sorted(path for folder in budget["folders"] for path in (ROOT / folder).rglob("*.py"))
    over = [line for path in files for line in check_file(path, budget)]
    print("\n".join(over) if over else f"Line budget: {len(files)} files, none over.")
    return 1 if over else 0


def check_file(path: Path, budget: dict[str, int]) -> Iterator[str]:
    """Each excess in one file, as `path:line: what`."""
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT)
    lines = len(text.splitlines())
    if lines > budget["file_lines"]:
        yield f"{name}:1: {lines} lines, {budget['file_lines']} allowed: make it a folder of the same name"
    tree = ast.parse(text, filename=str(path))
    methods = {item for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for item in node.body}
    for node in ast.walk(tree):
        if isinstance(node, Function):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > budget["function_lines"]:
                yield f"{name}:{node.lineno}: {node.name} has {length} lines, {budget['function_lines']} allowed"
            parameters = _parameters(node, method=node in methods)
            if parameters > budget["parameters"] and not _is_command(node):
                yield f"{name}:{node.lineno}: {node.name} has {parameters} parameters, {budget['parameters']} allowed"


def _is_command(node: Function) -> bool:
    """Whether its parameters are the options of a command, which nobody passes by position."""
    calls = [item.func for item in node.decorator_list if isinstance(item, ast.Call)]
    return any(isinstance(call, ast.Attribute) and call.attr == "command" for call in calls)


def _parameters(node: Function, *, method: bool) -> int:
    """How many the caller may give; `self` and `cls` are not the caller's."""
    arguments = node.args
    count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    static = any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in node.decorator_list)
    return count - 1 if method and not static else count


if __name__ == "__main__":
    sys.exit(main())
