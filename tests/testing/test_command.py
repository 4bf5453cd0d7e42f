"""`python -m upstack.testing`: its help is enough to use it."""

from __future__ import annotations

import pytest

from upstack.testing import Answer, Fault
from upstack.testing.__main__ import main


def _help(capsys: pytest.CaptureFixture[str], kind: str) -> list[str]:
    with pytest.raises(SystemExit):
        main([kind, "--help"])
    return capsys.readouterr().out.replace(",", " ").split()


def test_help_names_every_fault_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A list of dozens of names is read once, or not at all."""
    words = _help(capsys, "flaky")
    assert [words.count(fault.value) for fault in Fault] == [1] * len(Fault)


def test_help_says_what_an_answer_may_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Every member by its name, as a line of the file has it."""
    assert set(Answer.__struct_fields__) <= set(_help(capsys, "scripted"))
