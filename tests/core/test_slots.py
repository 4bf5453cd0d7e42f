"""Numbers shared by processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from upstack.core.errors import UpstackError
from upstack.core.slots import CELLS, Slots, make_memory

_ADDER = """
import sys
from upstack.core.slots import Slots, fence
slots = Slots(int(sys.argv[1]), int(sys.argv[2]))
names = [f"name {number}" for number in range(200)]
found = [slots.find(name, (7,)) for name in names]
for slot in found:
    for _ in range(200):
        slot.mine[1] += 1
        fence()
"""


def test_processes_that_name_slots_at_once_share_them_and_lose_no_count() -> None:
    """Each name is one slot for all, begins once, and every process's own row holds all it added."""
    memory = make_memory(3)
    adders = [
        subprocess.Popen([sys.executable, "-c", _ADDER, str(memory), str(row)], pass_fds=[memory]) for row in (1, 2, 3)
    ]
    assert [adder.wait(60) for adder in adders] == [0, 0, 0]
    slots = Slots(memory, 1)
    for number in range(200):
        rows = slots.find(f"name {number}", (9,)).rows
        assert [row[0] for row in rows] == [7, 0, 0, 0]
        assert [row[1] for row in rows] == [0, 200, 200, 200]


def test_no_two_names_share_a_slot() -> None:
    """However near their places in the directory are."""
    slots = Slots(make_memory(1), 1)
    for number in range(3000):
        slots.find(f"key/{number}").mine[CELLS - 1] = number
    assert [slots.find(f"key/{number}").mine[CELLS - 1] for number in range(3000)] == list(range(3000))


def test_too_many_names_are_refused() -> None:
    """With words, and those that are there stay."""
    slots = Slots(make_memory(1), 1)
    first = slots.find("first", (1,))
    for number in range(8191):
        slots.find(f"name {number}")
    with pytest.raises(UpstackError, match="too many"):
        slots.find("one more")
    assert slots.find("first").rows[0][0] == first.rows[0][0] == 1
