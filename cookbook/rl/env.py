"""Environments: what an episode is, at the level of messages.

An environment sees what the model said and answers with a reward and, unless the episode is over,
with the next messages. It knows nothing of tokens, prompts or servers; `cookbook.rl.rollouts` plays
it. Letters: P problems in a step, G episodes of each.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cookbook.errors import ConfigError
from cookbook.rows import Message


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the model said in one turn."""

    message: Message
    """As an assistant message: role, content and, where the model family has them, tool calls."""
    finished: bool
    """Whether the model ended its turn by itself rather than by running into the token limit."""
    n_tokens: int
    """Sampled tokens, the stop token included."""

    @property
    def text(self) -> str:
        """The content of the message."""
        return self.message["content"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What an environment answers to a reply."""

    reward: float = 0.0
    """Reward of this turn; an episode's is the sum over its turns."""
    done: bool = True
    """Whether the episode is over."""
    messages: Sequence[Message] = ()
    """What the model reads next, unless done: user or tool messages, never the assistant's."""
    forget: bool = False
    """Whether the model reads only these messages next, as when a board says all that matters. The
    turn then becomes a training row of its own."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Numbers to average over episodes and log as `env/all/<name>`, such as "correct"."""


class NoTurn(Exception):
    """Raised by an environment's `start` where there is nothing to say any more.

    So for a player whose game ended before its first turn. Its episode is left out of its group; it
    is no failure.
    """


class Env(Protocol):
    """One episode of one problem. Made fresh for each episode and used once.

    An environment that offers tools has an attribute `tools`, a list of `renderers.ToolSpec`; the
    model family's renderer lays them out and parses calls into `reply.message["tool_calls"]`.
    All environments share one event loop: work that takes long or may hang belongs into something
    to be awaited, such as `asyncio.to_thread` or a client with a time limit of its own. A call that
    blocks stops all others; if it does so for longer than the time-out, all groups that have not
    ended are given up, and the warning names the line.
    Players of one game are environments that share an object; a `step` may wait for the others, as
    all environments of a group are played at the same time. One that takes a certain side has an
    attribute `player`, a text: its episodes are compared with those of the same side only.
    """

    async def start(self) -> Sequence[Message]:
        """Return the conversation that the model answers first; ends with a user message.

        Raises:
            NoTurn: there is nothing to be answered.
        """
        ...

    async def step(self, reply: Reply) -> Step:
        """Score a reply and say how the episode goes on."""
        ...


@dataclass(frozen=True)
class Problem:
    """One problem, of which a group of G episodes is played and compared.

    Subclass it where episodes depend on each other: `make_envs` for games, `group_rewards` for
    comparisons within the group.
    """

    name: str
    """Tells the problem apart from all others of its task; it decides the samples' seeds."""
    make_env: Callable[[], Env]
    """Makes one fresh environment."""
    tag: str = ""
    """Subset it belongs to; metrics are logged for each tag when a step has several."""

    def make_envs(self, size: int) -> Sequence[Env]:
        """Return `size` environments that are played at the same time."""
        return [self.make_env() for _ in range(size)]

    async def group_rewards(self, replies: Sequence[Sequence[Reply]]) -> Sequence[float]:
        """Return what to add to each episode's reward, given the replies (E, turns) of all.

        E is G less the episodes that failed.
        """
        return [0.0] * len(replies)


@dataclass(frozen=True)
class Task:
    """Problems to train on, and others to measure on.

    Raises:
        ConfigError: no problems, or two of one name.
    """

    name: str
    train: Sequence[Problem]
    test: Sequence[Problem] = ()
    about: str = ""
    """What else decides its rewards, such as a judge's path; a run resumes with the same only."""

    def __post_init__(self) -> None:
        if not self.train:
            raise ConfigError(f"task {self.name!r} has no problems to train on; give at least one")
        seen: set[str] = set()
        for problem in [*self.train, *self.test]:
            if problem.name in seen:
                raise ConfigError(
                    f"task {self.name!r} has the problem {problem.name!r} twice. Names must differ "
                    "between all problems, held-out ones included, or they would not be held out."
                )
            seen.add(problem.name)

    def describe(self) -> dict[str, str | int]:
        """Return what tells this task from another one; a run is only resumed with the same."""
        names = "\n".join(problem.name for problem in [*self.train, *self.test])
        digest = hashlib.sha256(names.encode()).hexdigest()[:16]
        told: dict[str, str | int] = {
            "name": self.name,
            "n_train": len(self.train),
            "n_test": len(self.test),
            "problems": digest,
        }
        return told | ({"about": self.about} if self.about else {})
