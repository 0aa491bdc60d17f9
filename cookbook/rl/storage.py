"""Rollouts on disk, with their text: `rollouts/<split>_<step>.jsonl` in the run's folder.

One episode a line. A step that is run again after a resume replaces its file.
"""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cookbook.rl.episodes import Episode, Group
from cookbook.runlog import lines

FOLDER = "rollouts"


def store_rollouts(
    log_path: Path,
    split: str,
    step: int,
    groups: Sequence[Group],
    advantages_P_E: Sequence[np.ndarray] | None = None,
) -> None:
    """Write the episodes of a step, failures included; no file for no groups.

    Args:
        log_path: the run's folder.
        split: "train" or "test".
        step: the step of the log that it belongs to.
        groups: what was played (P).
        advantages_P_E: each episode's advantage; None where nothing is trained.
    """
    if not groups:
        return
    records = []
    for index, group in enumerate(groups):
        where = {"step": step, "split": split, "group": index, "problem": group.problem.name}
        for number, episode in enumerate(group.episodes):
            advantage = None if advantages_P_E is None else float(advantages_P_E[index][number])
            records.append({**where, "advantage": advantage, **_episode(episode)})
        records += [{**where, "failure": why} for why in group.failures]
    folder = log_path / FOLDER
    folder.mkdir(exist_ok=True)
    lines.rewrite(folder / f"{split}_{step:06d}.jsonl", records)


def _episode(episode: Episode) -> dict[str, Any]:
    side = {"player": episode.player} if episode.player else {}
    return {
        **side,
        "reward": episode.reward,
        "ending": episode.ending,
        "metrics": episode.metrics,
        "opening": episode.opening,
        "messages": [_plain(message) for message in episode.messages],
        "turns": [
            {
                "text": turn.reply.text,
                "finished": turn.reply.finished,
                "reward": turn.reward,
                "prompt_tokens": len(turn.prompt),
                "tokens": list(turn.tokens),
                "logprobs": [round(value, 4) for value in turn.logprobs],
            }
            for turn in episode.turns
        ],
    }


def _plain(value: Any) -> Any:
    """Return a message with parsed tool calls as plain mappings."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
