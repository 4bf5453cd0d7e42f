"""Recorded sets of short texts and what each of them is about, as they lie in the folder UPSTACK_DATA."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

Labelled = tuple[str, str]  # a text and its label
_FMC_PARTS = ("train", "dev", "test")


def clinc150(data: Path) -> dict[str, list[Labelled]]:
    """Requests of 150 intents and of none, by part: train, val, test, oos_train, oos_val, oos_test."""
    with gzip.open(data / "clinc150" / "data_full.json.gz") as file:
        return msgspec.json.decode(file.read(), type=dict[str, list[Labelled]])


def fmc(data: Path) -> list[Labelled]:
    """What was observed at a machine, and in which way it failed: the rows of all parts."""
    lines = [line for part in _FMC_PARTS for line in (data / "fmc" / f"{part}.txt").read_text("utf-8").splitlines()]
    found = []
    for line in lines:
        if line.strip():
            text, _, label = line.rpartition(",")
            found.append((text, label))
    return found


def maintkg(data: Path, fewest: int = 1) -> list[Labelled]:
    """Work orders and the system that each is about; those that name none are left out, and systems with too few."""
    with (data / "maintkg" / "work_orders.csv").open(encoding="utf-8", newline="") as file:
        rows = [(row["OriginalShorttext"], row["MajorSystem"]) for row in csv.DictReader(file) if row["MajorSystem"]]
    counts = Counter(label for _, label in rows)
    return [row for row in rows if counts[row[1]] >= fewest]


def apart(rows: Sequence[Labelled]) -> tuple[list[str], list[str]]:
    """The texts, and the labels."""
    return [text for text, _ in rows], [label for _, label in rows]
