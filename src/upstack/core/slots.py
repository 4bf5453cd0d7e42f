"""Numbers that the processes of one gateway share, with no lock on the way of a request.

A *slot* is eight 64-bit integers under a name. Every process has its own row of each slot and writes that alone, so no
write is lost; what counts is the sum over the rows. Row 0 belongs to nobody: it is written once, when a slot is made.

Who must not exceed a sum together with others writes its own part first, calls `fence`, and then adds up: of two that
do so at once at least one sees both.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from upstack.core.errors import UpstackError

CELLS = 8  # of a slot: 64 bytes, a cache line, so that no two processes fight for one

_SLOTS = 8192
_NAME_BYTES = 16  # of a digest
_DIRECTORY = _SLOTS * _NAME_BYTES
_ROW = _SLOTS * CELLS * 8

_barrier = threading.Lock()


def fence() -> None:
    """Let the others see this process's writes before it reads on: taking a lock of any kind has the CPU do so."""
    with _barrier:
        pass


class Slot:
    """Eight numbers. `mine` is this process's row, `others` those of the other processes, `rows` all, row 0 first."""

    __slots__ = ("mine", "others", "rows")

    def __init__(self, mine: memoryview, rows: tuple[memoryview, ...]) -> None:
        self.mine = mine
        self.rows = rows
        self.others = tuple(row for row in rows[1:] if row is not mine)


class Slots:
    """The memory of all slots, as one of its processes sees it."""

    def __init__(self, descriptor: int, row: int) -> None:
        """`descriptor` is of `make_memory`, `row` this process's, from 1."""
        self._descriptor = descriptor
        self._memory = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size))
        self._rows = (len(self._memory) - _DIRECTORY) // _ROW
        self._row = row

    def find(self, name: str, first: Sequence[int] = ()) -> Slot:
        """Give the slot of that name; where nobody has asked for it before, row 0 begins with the numbers `first`."""
        digest = blake2b(name.encode(), digest_size=_NAME_BYTES).digest()
        with self._alone():
            for step in range(_SLOTS):
                index = (int.from_bytes(digest[:8]) + step) % _SLOTS
                entry = self._memory[index * _NAME_BYTES : (index + 1) * _NAME_BYTES]
                if entry == digest:
                    return self._slot(index)
                if not any(entry):
                    slot = self._slot(index)
                    for cell, number in enumerate(first):
                        slot.rows[0][cell] = number
                    entry[:] = digest
                    return slot
        raise UpstackError(f"more than {_SLOTS:,} keys, teams and tasks with limits are too many")

    def _slot(self, index: int) -> Slot:
        at = _DIRECTORY + index * CELLS * 8
        rows = tuple(self._memory[at + row * _ROW :][: CELLS * 8].cast("q") for row in range(self._rows))
        return Slot(rows[self._row], rows)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX)  # a process that dies lets go
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)


def make_memory(processes: int) -> int:
    """Make memory for so many processes; those who are to share it inherit the descriptor."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("upstack")
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)  # noqa: PTH108 - a name that nobody needs
    os.ftruncate(descriptor, _DIRECTORY + (processes + 1) * _ROW)
    return descriptor
