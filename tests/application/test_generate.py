from __future__ import annotations

import itertools

from upstack.application.data.generate import (
    SIMULATED_LABELS,
    SIMULATED_LARGE,
    SIMULATED_PRICES,
    SIMULATED_SMALL,
    generate_traffic,
)
from upstack.core.traffic import prompt_key
from upstack.foundation.backends.replay import ReplayBackend


def test_the_same_seed_gives_the_same_rows() -> None:
    """A run can be repeated, a longer one begins like a shorter one, and another seed gives other rows."""
    rows = list(generate_traffic(50, seed=3))
    assert list(itertools.islice(generate_traffic(500, seed=3), 50)) == rows
    assert all(one != other for one, other in zip(rows, generate_traffic(50, seed=4), strict=True))


def test_the_simulated_models_are_as_good_as_stated() -> None:
    """About 97 % and 90 % right, and both wrong together far oftener than chance would have it."""
    rows = list(generate_traffic(10_000))
    large, small = ([row.answers[name].loss or 0.0 for row in rows] for name in (SIMULATED_LARGE, SIMULATED_SMALL))
    n = len(rows)
    assert abs(sum(large) / n - 0.03) < 0.007
    assert abs(sum(small) / n - 0.10) < 0.012
    both = sum(a * b for a, b in zip(large, small, strict=True)) / n
    assert both > 2 * (sum(large) / n) * (sum(small) / n)


def test_the_rows_are_varied_consistent_and_say_that_they_are_simulated() -> None:
    """Prompts hardly repeat, every label occurs, the loss is what content and truth say, and all names say so."""
    rows = list(generate_traffic(3000))
    assert len({prompt_key(row.messages) for row in rows}) > 2990
    assert {row.truth for row in rows} == set(SIMULATED_LABELS)
    for row in rows:
        assert "simulated" in row.id
        assert "simulated" in row.task
        assert "simulated" in str(row.rights)
        assert "simulated" in row.messages[0]["content"]
        assert set(row.answers) == set(SIMULATED_PRICES)
        for name, answer in row.answers.items():
            assert name.startswith("simulated/")
            assert answer.loss == float(answer.content != row.truth)
            assert 0 < (answer.latency_s or 0) < 10
    assert ReplayBackend(rows).models == (SIMULATED_LARGE, SIMULATED_SMALL)
