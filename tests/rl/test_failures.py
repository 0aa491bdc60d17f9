"""An environment that fails costs its own episode; a server that fails ends the rollout."""

import asyncio
import math
import threading
import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from cookbook.rl import Problem, Step, Task, play
from cookbook.rl.metrics import episode_metrics
from cookbook.rl.trainer import _warn_of_failures
from cookbook.runlog import read_metrics
from tests.rl.fakes import Sampler, Talk, forever, more, player, problem, user
from tests.rl.runs import Guess, run

OOPS = ValueError("oops")
TOLD = "error: ValueError: oops"


def second_is(make_broken):
    """An environment factory whose second environment is another one."""
    count = iter(range(99))
    return lambda: make_broken() if next(count) == 1 else Talk(Step(reward=0.5))


async def says_nothing():
    return None


def not_awaitable(_reply=None):
    raise OOPS


FAULTS = {
    "raises in start": (lambda: Talk(opening=OOPS), TOLD),
    "raises in step": (lambda: Talk(OOPS), TOLD),
    "raises in a later step": (lambda: Talk(more("20"), OOPS), TOLD),
    "raises a TimeoutError of its own": (lambda: Talk(TimeoutError("db")), "error: TimeoutError"),
    "hangs in start": (lambda: Talk(opening=forever), "timeout: no answer within 0.2 s"),
    "hangs in step": (lambda: Talk(forever), "timeout: no answer within 0.2 s"),
    "start is no coroutine": (lambda: SimpleNamespace(start=not_awaitable), TOLD),
    "step returns nothing": (lambda: Talk(None), "error: step returned None"),
    "reward is no number": (lambda: Talk(Step(reward="one")), "error: reward is 'one'"),  # type: ignore[arg-type]
    "reward is not finite": (
        lambda: Talk(Step(reward=math.nan)),
        "error: reward is nan, expected a finite",
    ),
    "starts with nothing to read": (
        lambda: SimpleNamespace(start=says_nothing),
        "error: start returned no messages",
    ),
    "a message has no content": (
        lambda: Talk(Step(done=False, messages=[{"role": "user", "content": None}])),
        "error: its messages cannot be rendered",
    ),
    "the first prompt is too long": (
        lambda: Talk(opening="9 " * 9000),
        "error: the first prompt has",
    ),
    "metric is no number": (lambda: Talk(Step(metrics={"a": None})), "error: metric 'a' is None"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_costs_its_own_episode(fault):
    make_broken, told = FAULTS[fault]
    problems = [problem("a"), problem("b", second_is(make_broken)), problem("c")]
    groups = play(player(env_timeout_s=0.2), Sampler(), problems, 3, "key")
    assert [group.problem.name for group in groups] == ["a", "b", "c"]
    assert [len(group.episodes) for group in groups] == [3, 2, 3]
    assert [group.rewards.tolist() for group in groups] == [[1.0] * 3, [0.5] * 2, [1.0] * 3]
    assert [len(group.failures) for group in groups] == [0, 1, 0]
    with pytest.warns(UserWarning, match=f"^1 episodes failed .*'b': {told}"):
        _warn_of_failures(groups)
    metrics = episode_metrics(groups)
    timeouts = float(told.startswith("timeout"))
    assert metrics["rollout_errors/timeout"] == timeouts
    assert metrics["rollout_errors/error"] == 1 - timeouts
    assert metrics["env/all/total_episodes"] == 8


def test_an_environment_that_cannot_be_made_costs_its_group():
    def make():
        raise OOPS

    groups = play(player(), Sampler(), [problem("a"), problem("b", make)], 3, "key")
    assert [len(group.episodes) for group in groups] == [3, 0]
    assert groups[1].failures == [TOLD] * 3
    assert groups[1].rewards.tolist() == []
    assert episode_metrics(groups)["rollout_errors/error"] == 3
    assert set(episode_metrics(groups[1:])) == {"rollout_errors/error", "rollout_errors/timeout"}


def test_without_failures_nothing_is_reported():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _warn_of_failures(play(player(), Sampler(), [problem("a")], 2, "key"))


@dataclass(frozen=True)
class Compared(Problem):
    """A problem whose group's rewards come from a function of the replies."""

    rewards: object = None

    async def group_rewards(self, replies):
        found = self.rewards(replies)  # type: ignore[operator]
        return await found if hasattr(found, "__await__") else found


def compared(rewards, make_env=Talk):
    return Compared("b", make_env, rewards=rewards)


def test_group_rewards_are_added_to_the_right_episodes():
    def by_rank(replies):
        order = sorted(replies, key=lambda turns: turns[0].text)
        return [order.index(turns) for turns in replies]

    talks = [Talk(OOPS if i == 1 else Step(reward=10.0)) for i in range(4)]
    makers = iter(talks)
    (group,) = play(player(), Sampler(), [compared(by_rank, lambda: next(makers))], 4, "key")
    said = [talks[i].replies[0].text for i in (0, 2, 3)]
    assert group.rewards.tolist() == [10 + sorted(said).index(text) for text in said]
    assert len(set(said)) > 1


BAD_REWARDS = {
    "raises": (not_awaitable, TOLD),
    "hangs": (lambda replies: forever(), "timeout: "),
    "too few": (lambda replies: [1.0], "error: 1 group_rewards for 3 episodes"),
    "not finite": (lambda replies: [math.inf] * len(replies), "error: group_rewards' part is inf"),
    "no numbers": (lambda replies: [None] * len(replies), "error: group_rewards' part is None"),
}


@pytest.mark.parametrize("fault", BAD_REWARDS)
def test_a_comparison_that_fails_costs_its_group(fault):
    rewards, told = BAD_REWARDS[fault]
    problems = [problem("a"), compared(rewards)]
    groups = play(player(env_timeout_s=0.2), Sampler(), problems, 3, "key")
    assert [len(group.episodes) for group in groups] == [3, 0]
    assert len(groups[1].failures) == 3
    with pytest.warns(UserWarning, match=f"3 episodes failed .*'b': {told}"):
        _warn_of_failures(groups)


class Broken(Sampler):
    async def _answer(self, call):
        if call.prompt[-1] == 20:
            raise ConnectionError("the server is gone")
        return await super()._answer(call)


def test_a_server_that_fails_ends_the_rollout():
    problems = [problem("a", lambda: Talk(forever)), problem("b", lambda: Talk(more("20"), Step()))]
    with pytest.raises(ConnectionError, match="the server is gone"):
        play(player(), Broken(), problems, 3, "key")


# ---- environments that block


class Blocks:
    """Neither ends nor awaits until it is let go."""

    def __init__(self, let_go):
        self.let_go = let_go

    async def start(self):
        return [user("9")]

    async def step(self, reply):
        await asyncio.sleep(0.1)  # those that are quick have ended
        assert self.let_go.wait(60)
        return Step(reward=1.0)


@pytest.fixture
def let_go(monkeypatch):
    """An event that ends all blocking, at the latest with the test; nobody waits long for it."""
    monkeypatch.setattr("cookbook.rl.background.LEAST_PATIENCE_S", 0.2)
    event = threading.Event()
    yield event
    event.set()


BLOCKED = (
    r"timeout: step \(line \d+ of test_failures.py: assert self.let_go.wait\(60\)\) "
    r"has blocked all others for 0.2 s; await what takes long: asyncio.to_thread$"
)


def test_one_that_blocks_costs_the_groups_that_have_not_ended(let_go):
    problems = [problem("a"), problem("b", lambda: Blocks(let_go)), problem("c", slow_talk)]
    groups = play(player(env_timeout_s=0.2), Sampler(), problems, 3, "key")
    assert [len(group.episodes) for group in groups] == [3, 0, 0]
    assert [len(group.failures) for group in groups] == [0, 3, 3]
    with pytest.warns(UserWarning, match=f"^6 episodes failed .*'b': {BLOCKED}"):
        _warn_of_failures(groups)
    assert episode_metrics(groups)["rollout_errors/timeout"] == 6


def slow_talk():
    return Talk(lambda: asyncio.sleep(30, Step()))


def test_one_that_blocks_for_a_while_costs_nothing_but_time(let_go):
    let_go.set()
    (group,) = play(player(), Sampler(), [problem("b", lambda: Blocks(let_go))], 3, "key")
    assert len(group.episodes) == 3


@pytest.mark.parametrize("k", [0, 2])
def test_a_run_goes_on_after_one_that_blocks(config, server, let_go, k):
    once = iter([True])

    def second_step_blocks(number):
        def make():
            return Blocks(let_go) if number == 21 and next(once, False) else Guess(number)

        return problem(f"n{number}", make)

    task = Task("blocks", [second_step_blocks(n) for n in range(20, 24)])
    config = replace(config, prompts_per_step=1, max_steps=4, env_timeout_s=0.2, max_staleness=k)
    with pytest.warns(UserWarning, match="has blocked all others"):
        result = run(config, task, server)
    metrics = read_metrics(result.log_path)
    timeouts = [line["rollout_errors/timeout"] for line in metrics]
    assert sorted(timeouts) == [0, 0, 0, config.group_size]
    blocked = timeouts.index(config.group_size)
    fresh = [min(step, k) for step in range(blocked + 1)] + [min(i, k) for i in range(3 - blocked)]
    assert [line["optim/staleness"] for line in metrics] == fresh


# ---- environments that wait for each other


class Board:
    """Moves of two players in turn, 4 in all."""

    def __init__(self):
        self.moves, self.changed = [], asyncio.Condition()

    def over(self):
        return len(self.moves) == 4

    async def wait_for_turn(self, me):
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.moves) % 2 == me or self.over())


class Seat:
    def __init__(self, board, me):
        self.board, self.me = board, me

    async def start(self):
        await self.board.wait_for_turn(self.me)
        return [user(" ".join(["9", *self.board.moves]))]

    async def step(self, reply):
        async with self.board.changed:
            self.board.moves.append(reply.text)
            self.board.changed.notify_all()
        await self.board.wait_for_turn(self.me)
        other = self.board.moves[-1]
        over = self.board.over()
        return Step(reward=float(self.me), done=over, messages=[] if over else [user(other)])


@dataclass(frozen=True)
class Game(Problem):
    def make_envs(self, size):
        boards = [Board() for _ in range(size // 2)]
        return [Seat(board, me) for board in boards for me in (0, 1)]


def test_two_players_who_wait_for_each_other_play_to_the_end():
    games = [Game("g", Talk), Game("h", Talk)]
    groups = play(player(env_timeout_s=10), Sampler(), games, 4, "key")
    for group in groups:
        assert group.failures == []
        assert [len(episode.turns) for episode in group.episodes] == [2] * 4
        assert group.rewards.tolist() == [0.0, 2.0, 0.0, 2.0]
        first, second = group.episodes[:2]
        moves = [e.turns[i].reply.text for i in (0, 1) for e in (first, second)]
        assert second.messages[0]["content"] == f"9 {moves[0]}"
        assert first.messages[2]["content"] == moves[1]
        assert second.messages[2]["content"] == moves[2]


def test_fewer_places_than_groups_still_plays_whole_games():
    games = [Game(str(i), Talk) for i in range(3)]
    groups = play(player(env_timeout_s=10, groups_at_once=1), Sampler(), games, 2, "key")
    assert [len(group.episodes) for group in groups] == [2, 2, 2]
