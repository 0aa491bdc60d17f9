"""Sides of a game in one group, fresh prompts, and episodes without a turn."""

import numpy as np
import pytest

from cookbook.rl import (
    Group,
    NoTurn,
    Step,
    episode_advantages,
    episode_rows,
    group_advantages,
    play,
)
from cookbook.rl.storage import store_rollouts
from tests.rl.fakes import Sampler, Talk, episode, more, player, problem, turn, user
from tests.rl.runs import stored


def group(*sides):
    """A group of (player, reward)."""
    played = [episode(turn([1], [7], reward=reward), player=side) for side, reward in sides]
    return Group(problem=problem("p"), episodes=played)


def test_sides_are_compared_with_themselves():
    """The first player wins three of four games: it earns nothing for being first."""
    game = group(("X", 1), ("O", -1), ("X", 1), ("O", -1), ("X", 1), ("O", -1), ("X", -1), ("O", 1))
    (advantages,) = episode_advantages([game])
    assert advantages.tolist() == [0.5, -0.5, 0.5, -0.5, 0.5, -0.5, -1.5, 1.5]
    (together,) = group_advantages([game.rewards])
    assert together.tolist() == [1, -1, 1, -1, 1, -1, -1, 1]


def test_a_lone_side_teaches_nothing():
    (advantages,) = episode_advantages([group(("X", 1), ("O", -1))])
    assert advantages.tolist() == [0, 0]


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out", "group_normalised"])
def test_without_sides_it_is_the_group(baseline):
    rng = np.random.default_rng(0)
    groups = [group(*[("", r) for r in rng.normal(size=n)]) for n in (0, 1, 2, 7)]
    found = episode_advantages(groups, baseline)
    wanted = group_advantages([g.rewards for g in groups], baseline)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other)


def test_an_environment_tells_its_side():
    talk = Talk()
    talk.player = "X"
    (played,) = play(player(), Sampler(), [problem("p", lambda: talk)], 1, "key")
    assert played.episodes[0].player == "X"


def test_the_side_is_stored_where_there_is_one(tmp_path):
    store_rollouts(tmp_path, "train", 0, [group(("X", 1), ("", 0))])
    (records,) = stored(tmp_path).values()
    assert [record.get("player") for record in records] == ["X", None]


def test_a_fresh_prompt_forgets_and_starts_a_row():
    fresh = Step(done=False, messages=[user("20")], forget=True)
    talk = Talk(more("21"), fresh, more("22"), Step())
    (played,) = play(player(), Sampler(), [problem("p", lambda: talk)], 1, "key")
    (found,) = played.episodes
    turns = found.turns
    assert list(turns[1].prompt) == [*turns[0].prompt, *turns[0].tokens, 21]
    assert list(turns[2].prompt) == [1, 20]
    assert list(turns[3].prompt) == [1, 20, *turns[2].tokens, 22]
    assert [len(row.tokens) for row in episode_rows(found, 1.0)] == [
        len(turns[1].prompt) + len(turns[1].tokens),
        len(turns[3].prompt) + len(turns[3].tokens),
    ]
    assert len(found.messages) == 8, "to be read, all of it is kept"


class Silent:
    async def start(self):
        raise NoTurn


def test_an_episode_without_a_turn_is_left_out():
    envs = iter([Talk(), Silent(), Talk()])
    (played,) = play(player(), Sampler(), [problem("p", lambda: next(envs))], 3, "key")
    assert len(played.episodes) == 2
    assert list(played.failures) == []
