"""The environment of one question that may be answered with the help of tools."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from renderers import ToolCallParseStatus, ToolSpec

from cookbook.rl import Reply, Step
from cookbook.rows import Message
from cookbook.tools.calls import CallLimits, answer_calls
from cookbook.tools.tool import Tool, tool_spec


@dataclass
class ToolEnv:
    """One question; the model may call tools, as often as the turn limit allows, then answers.

    What a reply leads to:

    - no call, ended by the model itself: it is the answer, graded; the episode is over;
    - well-formed calls: all are made, the results are the next messages. A call of an unknown tool,
      with arguments that do not fit, that fails or takes too long is answered by an error text;
    - a call that cannot be parsed, or a reply cut off by the token limit: the episode is over;
    - calls in the last turn: they are not made; the episode is over.

    Reward: ``correct + format_weight * (formed - 1)`` in the last turn, where an episode is formed
    if it ended with an answer: {1, 0, -w} for weight w.
    Source: the search recipe of the public tinker-cookbook, which rewards so; there, a failing
    format also is an answer without a marker.
    """

    messages: Sequence[Message]
    grade: Callable[[str], bool]
    """Whether an answer is right; runs in a thread."""
    offered: Sequence[Tool] = ()
    max_turns: int = 4
    """Replies, the answer included."""
    format_weight: float = 0.1
    limits: CallLimits = field(default_factory=CallLimits)
    turns: int = 0

    @property
    def tools(self) -> list[ToolSpec] | None:
        """The tools as the renderer lays them out, None without any."""
        return [tool_spec(tool) for tool in self.offered] or None

    async def start(self) -> Sequence[Message]:
        """Return the question."""
        return self.messages

    async def step(self, reply: Reply) -> Step:
        """Make the calls, or grade the answer."""
        self.turns += 1
        calls = reply.message.get("tool_calls") or []
        broken = [call for call in calls if call.status != ToolCallParseStatus.OK]
        if not reply.finished or broken:
            return self._over(correct=False, formed=False, broken_calls=float(bool(broken)))
        if not calls:
            right = await asyncio.to_thread(self.grade, reply.text)
            return self._over(correct=right, formed=True, broken_calls=0.0)
        if self.turns >= self.max_turns:
            return self._over(correct=False, formed=False, broken_calls=0.0)
        results = await answer_calls(self.offered, calls, self.limits)
        failed = sum(result.outcome != "ok" for result in results)
        return Step(
            done=False,
            messages=[result.message for result in results],
            metrics={"calls": float(len(results)), "failed_calls": float(failed)},
        )

    def _over(self, *, correct: bool, formed: bool, broken_calls: float) -> Step:
        return Step(
            reward=float(correct) + self.format_weight * (float(formed) - 1),
            metrics={
                "correct": float(correct),
                "format": float(formed),
                "broken_calls": broken_calls,
                "calls": 0.0,
                "failed_calls": 0.0,
            },
        )
