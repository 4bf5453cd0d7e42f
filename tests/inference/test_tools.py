"""Answers that call tools, compared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from upstack.core.completion import content_of
from upstack.inference.graders.making import make_grader
from upstack.inference.graders.tools import ToolWise


def _calling(*calls: tuple[str, str]) -> str:
    made = [
        {"id": f"{at}{name}", "type": "function", "function": {"name": name, "arguments": text}}
        for at, (name, text) in enumerate(calls)
    ]
    whole: dict[str, Any] = {"choices": [{"message": {"content": None, "tool_calls": made}}]}
    return content_of(json.dumps(whole).encode())


@pytest.mark.parametrize("name", ["exact", "exact:number", "exact:choice", "contains", "json"])
def test_calls_are_the_same_only_where_they_call_the_same(name: str) -> None:
    """No normaliser and no missing object makes two of them one."""
    grader = ToolWise(make_grader(name))
    one = _calling(("stop", '{"line": 1, "now": true}'))
    assert grader.same(one, _calling(("stop", '{"now": true, "line": 1}')))
    for other in (("start", '{"line": 1, "now": true}'), ("stop", '{"line": 2, "now": true}'), ("stop", "line 1")):
        assert not grader.same(one, _calling(other))
        assert not grader.same(_calling(other), one)
    assert not grader.same(one, _calling(("stop", '{"line": 1, "now": true}'), ("stop", '{"line": 1, "now": true}')))
    assert not grader.same(one, "1")


def test_a_call_is_an_object_to_the_json_grader() -> None:
    """Of name and arguments, with weights by field."""
    grader = ToolWise(make_grader("json", {"name": 3.0}))
    call = _calling(("stop", '{"line": 1}'))
    assert grader.loss(call, {"name": "stop", "arguments": {"line": 1}}) == 0.0
    assert grader.loss(call, {"name": "stop", "arguments": {"line": 2}}) == 0.25
    assert grader.loss(call, {"name": "start", "arguments": {"line": 1}}) == 0.75
