"""Rollouts: many environments played at once against one sampler.

Two promises. What was sampled is never tokenised again: the next prompt is made of the very tokens
by the renderer's bridge. And an environment that fails or hangs costs its own episode only, one
that blocks the groups that have not ended; a server that fails ends the rollout, as nothing could
go on.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from renderers import ParsedToolCall, Renderer, ToolCallParseStatus

from cookbook.rl.background import Background, Blocked
from cookbook.rl.env import Env, NoTurn, Problem, Reply
from cookbook.rl.env_calls import (
    EnvFailure,
    checked_step,
    env_call,
    finite_number,
    why_failed,
)
from cookbook.rl.episodes import Ending, Episode, Group, Turn
from cookbook.rl.shared_prompts import SharedPrompts
from cookbook.rows import Message

OnGroup = Callable[[int, int], None]
"""Called as groups end: how many have, of how many."""


@dataclass(frozen=True, kw_only=True)
class Player:
    """How episodes are played, whichever weights play them."""

    renderer: Renderer
    max_tokens: int
    """Longest reply, in tokens."""
    temperature: float = 1.0
    """Training needs 1: the reported log-probabilities are those at 1."""
    max_turns: int = 16
    """Replies after which an episode is cut off."""
    max_episode_tokens: int = 8192
    """Prompt and reply together; an episode whose next turn would not fit is cut off."""
    env_timeout_s: float = 120.0
    """Longest one call of an environment may take; then its episode counts as failed."""
    groups_at_once: int = 256
    """Bounds what is in flight. Whole groups, because players of one game wait for each other."""


def play(
    player: Player,
    sampler: Any,
    problems: Sequence[Problem],
    group_size: int,
    seed_key: str,
    on_group: OnGroup | None = None,
) -> list[Group]:
    """Return a group of episodes for each problem (P), played all at once.

    Args:
        player: how to play.
        sampler: the weights that play, a sampling client.
        problems: may repeat.
        group_size: G, episodes of each.
        seed_key: the same key, weights and problems give the same samples on the embedded engine,
            as long as environments do not depend on time; use a key for each step.
        on_group: told of progress.
    """
    with Background() as background:
        return Rollout(
            background, player, sampler, problems, group_size, seed_key, on_group
        ).groups()


class Rollout:
    """Groups that are being played in the background; see `play` for the arguments."""

    def __init__(
        self,
        background: Background,
        player: Player,
        sampler: Any,
        problems: Sequence[Problem],
        group_size: int,
        seed_key: str,
        on_group: OnGroup | None = None,
    ) -> None:
        self._background, self._player, self._sampler = background, player, sampler
        self._problems, self._size, self._key = problems, group_size, seed_key
        self._on_group = on_group
        self._ended: dict[int, Group] = {}
        self._playing = background.submit(self._play())

    def groups(self) -> list[Group]:
        """Wait for all groups (P). Those that a blocking environment keeps from ending failed."""
        try:
            self._background.result(self._playing, self._player.env_timeout_s)
        except Blocked as blocked:
            why = [f"timeout: {blocked}; await what takes long: asyncio.to_thread"] * self._size
            for index, problem in enumerate(self._problems):
                self._ended.setdefault(index, Group(problem=problem, episodes=[], failures=why))
        return [self._ended[index] for index in range(len(self._problems))]

    async def _play(self) -> None:
        places = asyncio.Semaphore(self._player.groups_at_once)

        async def one(index: int, problem: Problem) -> None:
            async with places:
                key = f"{self._key} {index} {problem.name}"
                group = await _play_group(self._player, self._sampler, problem, self._size, key)
            self._ended[index] = group
            if self._on_group:
                self._on_group(len(self._ended), len(self._problems))

        await _all([one(i, problem) for i, problem in enumerate(self._problems)])


async def _play_group(player: Player, client: Any, problem: Problem, size: int, key: str) -> Group:
    sampler = SharedPrompts(player.renderer, client, player.max_tokens, player.temperature, key)
    try:
        envs = problem.make_envs(size)
    except Exception as error:
        return Group(problem=problem, episodes=[], failures=[why_failed(error)] * size)
    played = await _all([_play_or_fail(player, sampler, env) for env in envs])
    episodes = [outcome for outcome in played if isinstance(outcome, Episode)]
    failures = [outcome for outcome in played if isinstance(outcome, str)]
    try:
        replies = [[turn.reply for turn in episode.turns] for episode in episodes]
        found = await env_call(player.env_timeout_s, problem.group_rewards, replies)
        added = [finite_number("group_rewards' part", value) for value in found]
        if len(added) != len(episodes):
            raise EnvFailure(f"error: {len(added)} group_rewards for {len(episodes)} episodes")
        episodes = [
            replace(episode, group_reward=more)
            for episode, more in zip(episodes, added, strict=True)
        ]
    except EnvFailure as failure:
        episodes, failures = [], [*failures, *([str(failure)] * len(episodes))]
    return Group(problem=problem, episodes=episodes, failures=failures)


async def _play_or_fail(player: Player, sampler: SharedPrompts, env: Env) -> Episode | str | None:
    try:
        return await _play_env(player, sampler, env)
    except NoTurn:
        return None
    except EnvFailure as failure:
        return str(failure)


async def _play_env(player: Player, sampler: SharedPrompts, env: Env) -> Episode:
    renderer, tools = player.renderer, getattr(env, "tools", None)
    messages: list[Any] = list(await env_call(player.env_timeout_s, env.start) or ())
    read, opening, turns = list(messages), len(messages), list[Turn]()
    if not messages:
        raise EnvFailure("error: start returned no messages; give the model something to answer")
    with _rendering():
        prompt = _prompt(renderer, messages, tools)
    if len(prompt) + player.max_tokens > player.max_episode_tokens:
        raise EnvFailure(
            f"error: the first prompt has {len(prompt)} tokens, which with a reply of "
            f"{player.max_tokens} is more than max_episode_tokens, {player.max_episode_tokens}"
        )

    def ended(ending: Ending) -> Episode:
        return Episode(
            messages=messages,
            opening=opening,
            turns=turns,
            ending=ending,
            player=getattr(env, "player", ""),
        )

    while True:
        sequence = await sampler.sample(prompt)
        reply = _reply(renderer, prompt, sequence, tools)
        step = checked_step(await env_call(player.env_timeout_s, env.step, reply))
        turns.append(
            Turn(
                prompt=prompt,
                tokens=list(sequence.tokens),
                logprobs=list(sequence.logprobs),
                reply=reply,
                reward=step.reward,
                metrics=step.metrics,
            )
        )
        messages += [reply.message, *step.messages]
        if step.done:
            return ended("done")
        if len(turns) == player.max_turns:
            return ended("max_turns")
        new = list(step.messages)
        read = new if step.forget else [*read, reply.message, *new]
        with _rendering():
            if step.forget:
                prompt = _prompt(renderer, read, tools)
            else:
                prompt = _next_prompt(renderer, turns[-1], read, new, tools)
        if len(prompt) + player.max_tokens > player.max_episode_tokens:
            return ended("max_tokens")


def _reply(renderer: Renderer, prompt: list[int], sequence: Any, tools: Any) -> Reply:
    tokens = list(sequence.tokens)
    parsed = renderer.parse_response(tokens, tools=tools, prompt_ids=prompt)
    message: Message = {"role": "assistant", "content": parsed.content or ""}
    if parsed.reasoning_content:
        message["reasoning_content"] = parsed.reasoning_content
    if parsed.tool_calls:
        message["tool_calls"] = parsed.tool_calls
    return Reply(message=message, finished=sequence.stop_reason == "stop", n_tokens=len(tokens))


def _next_prompt(
    renderer: Renderer,
    turn: Turn,
    messages: list[Any],
    new: list[Any],
    tools: Any,
) -> list[int]:
    """Return the next turn's prompt: the same tokens continued, or where that cannot be, anew."""
    bridged = renderer.bridge_to_next_turn(list(turn.prompt), list(turn.tokens), new, tools=tools)
    if bridged is not None:
        return bridged.token_ids
    return _prompt(renderer, messages, tools)


def _prompt(renderer: Renderer, messages: list[Any], tools: Any) -> list[int]:
    """Return the tokens of a conversation that is laid out from its start."""
    plain = [_with_plain_calls(message) for message in messages]
    return renderer.render_ids(plain, tools=tools, add_generation_prompt=True)


def _with_plain_calls(message: Any) -> Any:
    """Return a reply with its parsed tool calls as renderers read them; broken ones are left out.

    Only where history is laid out anew: a bridge keeps the tokens that were sampled.
    """
    calls = message.get("tool_calls")
    if not calls:
        return message
    plain = [
        {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        if isinstance(call, ParsedToolCall)
        else call
        for call in calls
        if not isinstance(call, ParsedToolCall) or call.status == ToolCallParseStatus.OK
    ]
    return {**message, "tool_calls": plain}


@contextmanager
def _rendering() -> Iterator[None]:
    """Blame messages that cannot be laid out on their environment."""
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise EnvFailure(f"error: its messages cannot be rendered: {why}") from error


async def _all(coroutines: Sequence[Any]) -> list[Any]:
    """Return all results in order; the first error cancels the rest and is raised as it is."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
