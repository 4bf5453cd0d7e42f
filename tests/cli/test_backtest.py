"""`upstack backtest`, as a shell would call it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.cli.calling import call
from tests.inference.traffic import REFERENCE, made_rows
from upstack.core.traffic import write_traffic

PRICES = """
[prices."big/reference"]
input = 5
output = 15
[prices."x/a"]
input = 0.1
output = 0.4
[prices."x/b"]
input = 0.1
output = 0.3
"""
WRONG = {REFERENCE: 0.1, "x/a": 0.02, "x/b": 0.5}
QUICK = ("--strategy", "single", "--max-loss", "0.08", "--calibrate", "0.7")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with recorded traffic of two tasks and its prices."""
    rows = made_rows(700, WRONG) + made_rows(300, WRONG, 1, task="parts")
    write_traffic(tmp_path / "seen.jsonl.gz", rows)
    (tmp_path / "seen.prices.toml").write_text(PRICES)
    return tmp_path


def test_it_says_what_every_member_is(place: Path) -> None:
    """The sum of the tasks, and each by itself."""
    done = call("backtest", "seen.jsonl.gz", "--reference", REFERENCE, *QUICK, "--json", cwd=place)
    assert done.code == 0, done.err
    said = done.json
    assert set(said["tasks"]) == {"triage", "parts"}
    for each in (said, *said["tasks"].values()):
        assert set(each) >= {
            *("reference", "policy", "cost_ratio", "cost_ratio_all_in", "excess_loss", "excess_loss_interval"),
            *("certified", "n_fit", "n_evidence", "n_test", "measured_share", "seed", "why"),
        }
        assert set(each["reference"]) == {"cost_usd", "loss"}
        assert set(each["policy"]) >= {"strategy", "cost_usd", "loss", "routes"}
        assert each["certified"] or each["cost_ratio"] == 1.0
    tasks = said["tasks"].values()
    assert said["n_test"] == sum(each["n_test"] for each in tasks)
    assert said["policy"]["cost_usd"] == pytest.approx(sum(each["policy"]["cost_usd"] for each in tasks))
    assert said["tasks"]["triage"]["certified"]


def test_a_person_reads_what_was_tried_and_why(place: Path) -> None:
    """A task that is certified, one that is not, and the drawing."""
    done = call("backtest", "seen.jsonl.gz", "--reference", REFERENCE, *QUICK, "--plot", "drawn.svg", cwd=place)
    assert done.code == 0, done.err
    assert "Certified: its loss exceeds the reference's by at most 0.08, with confidence 0.95" in done.out
    assert "do nothing" in done.out
    assert (place / "drawn-triage.svg").read_text().startswith("<svg")


def test_a_curve_and_one_task(place: Path) -> None:
    """In percent of the calls."""
    arguments = (
        "--reference",
        REFERENCE,
        "--candidates",
        "x/b",
        "--task",
        "triage",
        "--strategy",
        "precall",
        "--curve",
    )
    said = call("backtest", "seen.jsonl.gz", *arguments, "--json", cwd=place).json
    assert list(said["tasks"]) == ["triage"]
    assert 0 < said["curve"]["cpt50"] < said["curve"]["cpt80"] <= 100
    assert 0.3 < said["curve"]["apgr"] < 0.7


def test_uncertified_claims_nothing(place: Path) -> None:
    """For comparison."""
    arguments = ("--reference", REFERENCE, "--strategy", "single", "--uncertified", "--json")
    said = call("backtest", "seen.jsonl.gz", *arguments, cwd=place).json
    assert not said["certified"]
    assert said["n_evidence"] == 0


def test_a_function_of_ones_own_grades(place: Path) -> None:
    """Found beside where the command runs."""
    (place / "mine.py").write_text("def loss(answer, truth):\n    return 0.0 if answer == truth else 1.0\n")
    rows = [json.loads(line) for line in _unzipped(place / "seen.jsonl.gz")]
    for row in rows:
        for answer in row["answers"].values():
            del answer["loss"]
    (place / "bare.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ("--reference", REFERENCE, *QUICK, "--prices", "seen.prices.toml", "--json", "--task", "triage")
    said = call("backtest", "bare.jsonl", *arguments, "--grader", "mine:loss", cwd=place).json
    assert said["grader"] == "mine:loss"
    assert said["certified"]
    assert said["labelled_share"] == 1.0
    (place / "mine.py").write_text("def loss(answer, truth):\n    return 7\n")
    said = call("backtest", "bare.jsonl", *arguments, "--grader", "mine:loss", cwd=place).json
    assert "gave 7; a loss is a number in 0 to 1" in said["why"]
    assert not said["certified"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--reference"),
        (("--reference", "no/such"), 'no answers of "no/such"'),
        (("--reference", REFERENCE, "--candidates", "no/such"), 'no answers of "no/such"'),
        (("--reference", REFERENCE, "--candidates", REFERENCE), "is the reference"),
        (("--reference", REFERENCE, "--strategy", "best"), "auto, single, agree, cascade, confidence, precall"),
        (("--reference", REFERENCE, "--grader", "exact:nothing"), 'no normaliser "nothing"'),
        (("--reference", REFERENCE, "--grader", "taste"), 'no grader "taste"'),
        (("--reference", REFERENCE, "--grader", "no_module:loss"), "cannot be imported"),
        (("--reference", REFERENCE, "--max-loss", "2"), "--max-loss 2: lies between 0 and 1"),
        (("--reference", REFERENCE, "--confidence", "nan"), "--confidence"),
        (("--reference", REFERENCE, "--calibrate", "1"), "--calibrate"),
        (("--reference", REFERENCE, "--curve", "--strategy", "agree"), "--curve ranks by a score"),
        (("--reference", REFERENCE, "--task", "nothing"), "no recorded answers of task nothing"),
        (("--reference", REFERENCE, "--prices", "empty.toml"), '"big/reference" has no known price'),
        (("--reference", REFERENCE, "--plot", "no/such/place.svg", *QUICK), "--plot"),
    ],
)
def test_what_cannot_be_is_named(place: Path, arguments: tuple[str, ...], words: str) -> None:
    """In one line, without a trace."""
    (place / "empty.toml").write_text("")
    assert words in call("backtest", "seen.jsonl.gz", *arguments, cwd=place).err.splitlines()[-1]


def test_a_grader_is_found_by_the_installed_command_too(place: Path) -> None:
    """Which does not look where it is called by itself, as `python -m` does."""
    (place / "mine.py").write_text("def loss(answer, truth):\n    return 0.0 if answer == truth else 1.0\n")
    command = [str(Path(sys.executable).with_name("upstack")), "backtest", "seen.jsonl.gz", "--reference", REFERENCE]
    done = subprocess.run(
        [*command, *QUICK, "--grader", "mine:loss", "--json"], cwd=place, capture_output=True, check=True
    )
    assert json.loads(done.stdout)["tasks"]["triage"]["grader"] == "mine:loss"


def test_a_machine_by_the_hour_needs_the_seconds(place: Path) -> None:
    """Without them an answer would seem to cost nothing."""
    (place / "hour.toml").write_text(
        PRICES.split('[prices."x/a"]', maxsplit=1)[0] + '[prices."x/a"]\nusd_per_hour = 2\n'
    )
    arguments = ("--reference", REFERENCE, "--candidates", "x/a", *QUICK, "--prices", "hour.toml", "--json")
    said = call("backtest", "seen.jsonl.gz", *arguments, cwd=place).json
    assert not said["certified"]
    assert "no `latency_s`" in said["why"]


def test_a_candidate_as_good_as_the_reference_has_no_curve_and_is_certified(place: Path) -> None:
    """The one does not stop the other."""
    arguments = ("--reference", REFERENCE, "--candidates", "x/a", "--task", "triage", "--strategy", "precall")
    done = call(
        "backtest", "seen.jsonl.gz", *arguments, "--max-loss", "0.08", "--calibrate", "0.7", "--curve", cwd=place
    )
    assert "No curve" in done.out
    assert "Certified" in done.out


def test_what_a_route_said_twice_is_served_by_a_route_of_that_name(tmp_path: Path) -> None:
    """The configuration that is printed loads."""
    rows = [
        replace(
            row,
            answers={
                **row.answers,
                "x/a": replace(answer, samples=(answer.content if answer.content == row.truth else "none",)),
            },
        )
        for row in made_rows(1_200, {REFERENCE: 0.05, "x/a": 0.2})
        for answer in [row.answers["x/a"]]
    ]
    write_traffic(tmp_path / "seen.jsonl.gz", rows)
    (tmp_path / "seen.prices.toml").write_text(PRICES)
    arguments = ("--reference", REFERENCE, "--strategy", "agree", "--max-loss", "0.03")
    done = call("backtest", "seen.jsonl.gz", *arguments, cwd=tmp_path)
    assert "Certified" in done.out, done.out + done.err
    printed = "\n".join(line.strip() for line in done.out[done.out.index("To have it proved") :].splitlines()[1:])
    told = tomllib.loads(printed)
    assert told["routes"] == {"a-again": {"model": "x/a"}}
    assert told["tasks"]["triage"]["candidates"] == ["x/a", "a-again"]


def _unzipped(path: Path) -> list[str]:
    import gzip

    return gzip.decompress(path.read_bytes()).decode().splitlines()
