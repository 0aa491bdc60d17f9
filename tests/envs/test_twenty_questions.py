import asyncio

import pytest

from cookbook.envs.twenty_questions import (
    WORDS,
    TwentyQuestionsEnv,
    answer_prompt,
    model_answerer,
    parse_guess,
    read_answer,
    twenty_questions_task,
)
from cookbook.errors import ConfigError
from tests.envs.test_guess_number import played


@pytest.mark.parametrize(
    ("text", "word"),
    [("Guess: cat", "cat"), ("guess:  Cat. ", "cat"), ("GUESS: polar\nbear!", "polar bear")],
)
def test_a_guess_names_a_word(text, word):
    assert parse_guess(text) == word


@pytest.mark.parametrize(
    "text", ["", "Is it a cat?", "cat", "My guess: cat", "Guess cat", "Guess:"]
)
def test_anything_else_is_a_question(text):
    assert parse_guess(text) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Yes", "Yes."),
        ("yes, it is", "Yes."),
        (' "No" it says', "No."),
        ("Nothing", "I don't know."),
        ("Well, yes", "I don't know."),
        ("", "I don't know."),
    ],
)
def test_an_answer_is_read_by_its_first_word(text, told):
    assert read_answer(text) == told


def test_a_game():
    asked = []

    async def answerer(secret, question):
        asked.append((secret, question))
        return "Yes."

    steps = played(TwentyQuestionsEnv("cat", answerer), "Is it alive?", "Guess: dog", "Guess: Cat.")
    assert asked == [("cat", "Is it alive?")], "guesses are compared, not asked about"
    assert [step.messages[0]["content"] for step in steps[:-1]] == ["Yes.", "No."]
    assert [(step.done, step.reward) for step in steps] == [(False, 0), (False, 0), (True, 1)]
    assert [step.metrics["guesses"] for step in steps] == [0, 1, 1]


def test_the_turn_limit():
    async def answerer(secret, question):
        return "No."

    steps = played(TwentyQuestionsEnv("cat", answerer, max_turns=2), "Is it red?", "Is it blue?")
    assert (steps[-1].done, steps[-1].reward, steps[-1].metrics["correct"]) == (True, 0, 0)


def test_a_frozen_model_reads_the_word_and_the_latest_question_only():
    read = []

    async def answer(messages):
        read.append(messages)
        return "yes!"

    told = asyncio.run(model_answerer(answer)("cat", "Is it alive?"))
    assert told == "Yes."
    assert read == [answer_prompt("cat", "Is it alive?")]
    assert len(read[0]) == 1


def test_the_task():
    async def answerer(secret, question):
        return "No."

    assert len(set(WORDS)) == len(WORDS) >= 60
    task = twenty_questions_task(answerer, n_train=20, n_test=5, seed=0)
    words = {problem.name for problem in [*task.train, *task.test]}
    assert len(words) == 25
    assert words <= set(WORDS)
    with pytest.raises(ConfigError, match=r"n_train \+ n_test = 99, but there are"):
        twenty_questions_task(answerer, n_train=90, n_test=9, seed=0)
