from __future__ import annotations

import pytest

from upstack.core.clock import Clock
from upstack.testing import FakeClock


def test_it_stands_still_until_advanced() -> None:
    """Both clocks move by what is asked for, and by nothing else."""
    clock: Clock = FakeClock(wall=100.0, monotonic=5.0)
    assert (clock.time(), clock.monotonic()) == (100.0, 5.0)
    assert isinstance(clock, FakeClock)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 7.5)


def test_the_wall_clock_may_jump_back() -> None:
    """Setting the wall clock leaves the monotonic one alone."""
    clock = FakeClock(wall=100.0, monotonic=5.0)
    clock.set_wall(1.0)
    assert (clock.time(), clock.monotonic()) == (1.0, 5.0)


def test_time_does_not_go_back() -> None:
    """A negative step is refused."""
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-0.1)
