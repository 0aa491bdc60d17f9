import asyncio
import itertools

import pytest

from cookbook.envs.guess_number import (
    GuessNumberEnv,
    fewest_turns,
    guess_number_task,
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
        assert steps[-1].metrics == {"illegal": 0, "correct": 1}


def test_the_last_turn_ends_it_whatever_was_said():
    for last in ("1", "none"):
        steps = played(GuessNumberEnv(9, 16, 3), "1", "1", last)
        assert [step.done for step in steps] == [False, False, True]
        assert steps[-1].reward == 0
        assert steps[-1].metrics["correct"] == 0


def test_what_the_keeper_says():
    steps = played(GuessNumberEnv(9, 16, 9), "1", "16", "17", "what?")
    said = [step.messages[0]["content"] for step in steps]
    assert said == ["Higher.", "Lower.", "Say a number from 1 to 16.", "Say a number from 1 to 16."]
    assert [step.metrics["illegal"] for step in steps] == [0, 0, 1, 1]


def test_the_task_holds_numbers_out():
    task = guess_number_task(highest=16, max_turns=5, n_test=4, seed=0)
    names = [problem.name for problem in [*task.train, *task.test]]
    assert (len(task.train), len(task.test)) == (12, 4)
    assert sorted(names) == sorted(f"number {n}" for n in range(1, 17))
    secret = task.test[0].make_env().secret
    assert task.test[0].name == f"number {secret}"
    for bad in ({"highest": 1}, {"max_turns": 0}, {"n_test": 16}, {"n_test": -1}):
        with pytest.raises(ConfigError):
            guess_number_task(**{"highest": 16, "max_turns": 5, "n_test": 4, "seed": 0, **bad})
