"""The single-turn environment: one question, one answer, one grade."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cookbook.rl.env import Reply, Step
from cookbook.rows import Message


@dataclass(frozen=True, kw_only=True)
class Grade:
    """The verdict on one answer."""

    correct: bool
    well_formed: bool = True


@dataclass
class QuestionEnv:
    """One question, one answer, one grade.

    Reward: ``correct + format_weight * (formed - 1)``, where an answer is formed if the grade says
    so and the model ended it by itself: {1, 1 - w, 0, -w} for weight w. An answer that ran into
    the token limit is never correct: whatever it says so far, it might still take back.
    Source: the single-turn environment of the public tinker-cookbook, which gives a cut-off answer
    its credit.
    """

    messages: Sequence[Message]
    grade: Callable[[str], Grade]
    """From the answer's text to its grade; may take a while, it runs in a thread."""
    format_weight: float = 0.0
    tools: list[Any] | None = None

    async def start(self) -> Sequence[Message]:
        """Return the question."""
        return self.messages

    async def step(self, reply: Reply) -> Step:
        """Grade the answer; the episode is over."""
        grade = await asyncio.to_thread(self.grade, reply.text)
        correct = float(grade.correct and reply.finished)
        formed = float(grade.well_formed and reply.finished)
        return Step(
            reward=correct + self.format_weight * (formed - 1),
            metrics={"correct": correct, "format": formed},
        )
