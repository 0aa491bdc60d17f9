"""Reading stored rollouts: episodes with their text, rewards and advantages."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cookbook.analysis.table import Table
from cookbook.analysis.wording import number

FOLDER = "rollouts"
Record = dict[str, Any]


def read_rollouts(
    log_path: str | os.PathLike[str], split: str | None = None, step: int | None = None
) -> list[Record]:
    """Return the stored episodes of a run, by split and step, in the order they were played.

    Args:
        log_path: the run's folder; one without rollouts gives an empty list.
        split: "train" or "test"; None: both.
        step: optimiser steps that the weights had had; None: all.
    """
    files = sorted((Path(log_path).expanduser() / FOLDER).glob("*.jsonl"))
    # Plain JSON, unlike metrics: a reply that reads "NaN" is text.
    text = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    records = [json.loads(line) for line in text]
    return [
        record
        for record in records
        if split in (None, record.get("split")) and step in (None, record.get("step"))
    ]


def newest_rollouts(log_path: str | os.PathLike[str]) -> list[Record]:
    """Return the stored episodes of the newest training step; an empty list if there are none."""
    files = sorted((Path(log_path).expanduser() / FOLDER).glob("train_*.jsonl"))
    if not files:
        return []
    return [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]


def rollout_table(records: Sequence[Record], n: int = 3, width: int = 60) -> Table:
    """Return the `n` episodes with the most reward and the `n` with the least, failures left out.

    One episode of a problem at each end, so that a single problem does not fill the table.
    """
    played = [record for record in records if "failure" not in record]
    best = _one_per_problem(sorted(played, key=lambda r: -r["reward"]), n)
    worst = _one_per_problem(sorted(played, key=lambda r: r["reward"]), n)
    rows = [
        (
            number(record["reward"]),
            "–" if record["advantage"] is None else f"{record['advantage']:+.2f}",
            _shortened(question_of(record), width),
            _shortened(record["turns"][-1]["text"], width)
            + ("" if record["turns"][-1]["finished"] else " [cut off]"),
        )
        for record in [*best, *[r for r in reversed(worst) if r not in best]]
    ]
    return Table.of(("reward", "advantage", "question", "answer"), rows)


def question_of(record: Record) -> str:
    """Return what the model was asked: the last user message before its first own answer."""
    before = record["messages"][: record["opening"]]
    return next((m["content"] for m in reversed(before) if m["role"] == "user"), "")


def _one_per_problem(records: Sequence[Record], n: int) -> list[Record]:
    chosen: dict[str, Record] = {}
    for record in records:
        chosen.setdefault(record["problem"], record)
    return list(chosen.values())[:n]


def _shortened(text: str, width: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
