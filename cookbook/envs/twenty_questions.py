"""Twenty questions: the policy asks, another model, which is not trained, answers yes or no."""

import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cookbook.envs.problems import check_sizes, split_task
from cookbook.rl import Problem, Reply, Step, Task
from cookbook.rows import Message

WORDS = (
    "apple", "ball", "bear", "bed", "bee", "bell", "bicycle", "boat", "book", "boot", "bottle",
    "bread", "bridge", "butterfly", "candle", "car", "carrot", "castle", "cat", "chair", "cheese",
    "clock", "cloud", "coat", "cow", "cup", "dog", "door", "duck", "egg", "elephant", "fish",
    "flower", "fork", "frog", "guitar", "hammer", "hat", "horse", "house", "key", "lamp", "lion",
    "moon", "mountain", "mouse", "onion", "orange", "owl", "pencil", "piano", "pig", "plane",
    "rabbit", "river", "ship", "shirt", "snake", "spoon", "sun", "table", "tiger", "train", "tree",
)  # fmt: skip
"""Common nouns to be guessed."""

Answerer = Callable[[str, str], Awaitable[str]]
"""From the secret word and a question to an answer."""

_GUESS = re.compile(r"guess:\s*(.+?)[\s.!?]*", re.IGNORECASE | re.DOTALL)


def parse_guess(text: str) -> str | None:
    """Return the word of "Guess: word", in lower case; None for a question."""
    found = _GUESS.fullmatch(text.strip())
    return " ".join(found[1].lower().split()) if found else None


def read_answer(text: str) -> str:
    """Return "Yes.", "No." or "I don't know.", by the word that an answer begins with."""
    first = re.match(r"\W*(yes|no)\b", text, re.IGNORECASE)
    return f"{first[1].capitalize()}." if first else "I don't know."


def answer_prompt(secret: str, question: str) -> list[Message]:
    """Return what the answering model reads: the word and the latest question only."""
    text = f'Question about the word "{secret}": {question}\nAnswer yes or no.'
    return [{"role": "user", "content": text}]


def model_answerer(answer: Callable[[Sequence[Message]], Awaitable[str]]) -> Answerer:
    """Return a model as an answerer; `answer` gives its text, as `rl.FrozenModel` does."""

    async def reply(secret: str, question: str) -> str:
        return read_answer(await answer(answer_prompt(secret, question)))

    return reply


@dataclass
class TwentyQuestionsEnv:
    """One word to be found.

    Reward: 1 for naming it, 0 otherwise. A wrong guess costs a turn, as a question does. The
    answerer is asked about questions only: whether a guess is right is decided by comparing words.
    """

    secret: str
    answerer: Answerer
    max_turns: int = 20
    turns: int = 0

    async def start(self) -> Sequence[Message]:
        """Say what is asked for."""
        text = (
            "I think of a thing. Find out which: ask me short questions that I can answer with yes "
            'or no, one at a time. When you know it, reply "Guess: " and the word.'
        )
        return [{"role": "user", "content": text}]

    async def step(self, reply: Reply) -> Step:
        """Answer a question, or compare a guess."""
        self.turns += 1
        guess = parse_guess(reply.text)
        found = guess == self.secret
        metrics = {"guesses": float(guess is not None)}
        if found or self.turns >= self.max_turns:
            return Step(reward=float(found), metrics={**metrics, "correct": float(found)})
        told = "No." if guess else await self.answerer(self.secret, reply.text)
        return Step(done=False, messages=[{"role": "user", "content": told}], metrics=metrics)


def twenty_questions_task(
    answerer: Answerer,
    *,
    n_train: int,
    n_test: int,
    seed: int,
    max_turns: int = 20,
    words: Sequence[str] = WORDS,
) -> Task:
    """Return words to be found, some of them held out.

    Args:
        answerer: such as `model_answerer` of a frozen model.
        n_train: words to train on.
        n_test: other words.
        seed: decides which.
        max_turns: questions and guesses together.
        words: to choose from.
    Raises:
        ConfigError: more words than there are.
    """
    check_sizes(n_train, n_test, available=len(words))
    chosen = random.Random(f"twenty questions, seed {seed}").sample(list(words), n_train + n_test)
    make = partial(TwentyQuestionsEnv, answerer=answerer, max_turns=max_turns)
    return split_task(
        "twenty_questions", [Problem(w, partial(make, secret=w)) for w in chosen], n_test
    )
