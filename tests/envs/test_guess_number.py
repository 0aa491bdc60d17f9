import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook.envs.guess_number import (
    GuessNumberEnv,
    fewest_turns,
    guess_number_task,
    guess_number_turns,
    judge,
    parse_guess,
)
from cookbook.errors import ConfigError
from cookbook.rl import Reply


def replied(text):
    return Reply(message={"role": "assistant", "content": text}, finished=True, n_tokens=1)


def played(env, *guesses):
    async def run():
        await env.start()
        return [await env.step(replied(guess)) for guess in guesses]

    return asyncio.run(run())


def test_the_judge_on_every_pair():
    for secret, guess in itertools.product(range(1, 17), range(-1, 20)):
        said = judge(secret, 16, guess)
        if not 1 <= guess <= 16:
            assert said == "no number"
        else:
            assert (
                said == {0: "right", 1: "higher", -1: "lower"}[(secret > guess) - (secret < guess)]
            )
    assert judge(3, 16, None) == "no number"


@pytest.mark.parametrize(("text", "number"), [("7", 7), (" 12.", 12), ("007\n", 7)])
def test_a_guess_is_a_number_alone(text, number):
    assert parse_guess(text) == number


@pytest.mark.parametrize(
    "text", ["", "seven", "7 or 8", "My guess is 7", "-7", "7.5", "\u0667", "1e3", "9" * 5000]
)
def test_other_texts_are_no_guess(text):
    assert parse_guess(text) is None


def halving(secret, highest):
    low, high = 1, highest
    for turn in itertools.count(1):
        guess = (low + high) // 2
        said = judge(secret, highest, guess)
        if said == "right":
            return turn
        low, high = (guess + 1, high) if said == "higher" else (low, guess - 1)


@pytest.mark.parametrize("highest", [1, 2, 3, 7, 10, 16, 31, 100])
def test_halving_takes_the_fewest_turns(highest):
    taken = [halving(secret, highest) for secret in range(1, highest + 1)]
    assert sum(taken) / highest == pytest.approx(fewest_turns(highest))


def test_reward_falls_with_every_turn_and_is_paid_once():
    for n in range(1, 6):
        steps = played(GuessNumberEnv(9, 16, 5), *["1"] * (n - 1), "9")
        assert [step.reward for step in steps] == [0] * (n - 1) + [1 - (n - 1) / 5]
        assert [step.done for step in steps] == [False] * (n - 1) + [True]
        assert steps[-1].metrics == {"illegal": 0, "wasted": 0, "correct": 1}


def test_a_turn_that_gains_nothing_is_counted():
    """Said before, ruled out, out of range, no number: each as bad as the others."""
    steps = played(GuessNumberEnv(9, 16, 9), "4", "4", "3", "17", "what?", "12", "13", "9")
    assert [step.metrics["wasted"] for step in steps] == [0, 1, 1, 1, 1, 0, 1, 0]
    assert [step.reward for step in steps] == [0] * 7 + [1 - 7 / 9]


def test_the_last_turn_ends_it_whatever_was_said():
    for last in ("5", "1", "none"):
        steps = played(GuessNumberEnv(9, 16, 3), "1", "2", last)
        assert [step.done for step in steps] == [False, False, True]
        assert steps[-1].reward == 0
        assert steps[-1].metrics["correct"] == 0


def test_what_the_keeper_says():
    guesses = ("1", "14", "17", "what?", "16", "9")
    steps = played(GuessNumberEnv(9, 16, 9), *guesses)
    said = [step.messages[-1]["content"] for step in steps[:-1]]
    assert all(step.forget and step.messages[0]["role"] == "system" for step in steps[:-1])
    assert said == [
        "Higher, 2 to 16.",
        "Lower, 2 to 13.",
        "No number, 2 to 13.",
        "No number, 2 to 13.",
        "Lower, 2 to 13.",
    ]
    assert [step.metrics["illegal"] for step in steps] == [0, 0, 1, 1, 0, 0]


@given(st.integers(1, 16), st.lists(st.integers(0, 17), min_size=1, max_size=8))
def test_an_example_game_is_what_the_environment_would_say(secret, guesses):
    left, env = [], GuessNumberEnv(secret, 16, len(guesses))

    def choose(low, high):
        left.append((low, high))
        return guesses[len(left) - 1]

    turns = guess_number_turns(secret, 16, len(guesses), choose)
    asked = list(asyncio.run(env.start()))
    for turn, ends in zip(turns, left, strict=True):
        assert (env.low, env.high) == ends
        assert ends[0] <= secret <= ends[1], "the number is among what is left"
        assert turn[:-1] == asked
        step = asyncio.run(env.step(replied(turn[-1]["content"])))
        asked = step.messages
    assert step.done


def test_every_number_is_played_equally_often():
    task = guess_number_task(highest=16, max_turns=5, seed=0)
    for when, problems in (("train", task.train), ("test", task.test)):
        secrets = [problem.make_env().secret for problem in problems]
        assert sorted(secrets) == list(range(1, 17))
        assert [p.name for p in problems] == [f"{when} number {n}" for n in secrets]
    other = guess_number_task(highest=16, max_turns=5, seed=1)
    assert [p.name for p in other.train] != [p.name for p in task.train]
    for bad in ({"highest": 1}, {"max_turns": 0}):
        with pytest.raises(ConfigError):
            guess_number_task(**{"highest": 16, "max_turns": 5, "seed": 0, **bad})
