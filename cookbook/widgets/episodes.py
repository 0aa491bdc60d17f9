"""Stored episodes to look at: which ones, and each token in the colour of its worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import exp
from typing import Any

from cookbook.analysis.rollouts import Record
from cookbook.analysis.wording import number
from cookbook.token_boxes import TokenBoxes, show_token_boxes

ADVANTAGE, LOGPROB = "advantage", "log-probability"
LEGENDS = {
    ADVANTAGE: "Blue: better than the other answers to the same problem; vermillion: worse.",
    LOGPROB: "The bluer a token, the less likely the model thought it: 1 minus its probability.",
}


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which episodes to look at; what is None does not matter."""

    split: str | None = None
    step: int | None = None
    problem: str | None = None
    lowest: float = float("-inf")
    highest: float = float("inf")

    def fits(self, record: Record) -> bool:
        """Return whether an episode is one of them."""
        return (
            self.split in (None, record["split"])
            and self.step in (None, record["step"])
            and self.problem in (None, record["problem"])
            and self.lowest <= record["reward"] <= self.highest
        )


@dataclass(frozen=True)
class EpisodeView:
    """An episode as a heading and its messages; what the model sampled is token boxes."""

    heading: str
    messages: list[str | TokenBoxes]

    def markup(self) -> str:
        """Return the messages as HTML."""
        return "".join(
            said._repr_html_()
            if isinstance(said, TokenBoxes)
            else f'<pre style="white-space:pre-wrap">{escape(said)}</pre>'
            for said in self.messages
        )

    def __str__(self) -> str:
        return "\n".join([self.heading, *map(str, self.messages)])


def extremes(records: Sequence[Record], n: int) -> list[Record]:
    """Return up to `n` episodes of the last training step, else of the last: best, then worst."""
    training = [record for record in records if record["split"] == "train"] or records
    last = max(record["step"] for record in training)
    ranked = sorted((r for r in training if r["step"] == last), key=lambda r: -r["reward"])
    return ranked if len(ranked) <= n else [*ranked[: n - n // 2], *ranked[len(ranked) - n // 2 :]]


def step_name(record: Record) -> str:
    """Return the words for when an episode was played."""
    return (
        f"{'held out' if record['split'] == 'test' else 'training'}, after {record['step']} steps"
    )


def natural_colour(record: Record) -> str:
    """Return by advantage if the episode has one, else by log-probability."""
    return LOGPROB if record["advantage"] is None else ADVANTAGE


def view_episode(record: Record, tokenizer: Any, colour: str) -> EpisodeView:
    """Return an episode with its tokens coloured by `ADVANTAGE` or `LOGPROB`."""
    facts = [f"reward {number(record['reward'])}", str(record["problem"]), step_name(record)]
    if record["advantage"] is not None:
        facts.insert(1, f"advantage {record['advantage']:+.2f}")
    if record["ending"] != "done":
        facts.append(f"ended by {record['ending']}")
    facts += [f"{name} {number(value)}" for name, value in record["metrics"].items()]
    turns = iter(record["turns"])
    messages: list[str | TokenBoxes] = []
    for index, message in enumerate(record["messages"]):
        sampled = index >= record["opening"] and message["role"] == "assistant"
        turn = next(turns, None) if sampled else None
        if turn is None:
            messages.append(f"{message['role']}\n{message.get('content') or ''}")
        else:
            shaded = shades(turn, record["advantage"], colour)
            messages.append(show_token_boxes(tokenizer, turn["tokens"], shaded, "sampled"))
    return EpisodeView(" · ".join(facts), messages)


def shades(turn: Record, advantage: float | None, colour: str) -> list[float]:
    """Return a shade for each token (T) of a turn: vermillion below zero, blue above.

    By advantage all are alike, since an episode's advantage is that of all its tokens; from 1 on
    they have the full colour. By log-probability: 1 - p.
    """
    if colour == LOGPROB:
        return [1 - exp(min(0.0, value)) for value in turn["logprobs"]]
    return [max(-1.0, min(1.0, advantage or 0.0))] * len(turn["logprobs"])
