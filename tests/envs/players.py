"""Play a single-turn environment by hand."""

import asyncio

from cookbook.rl import Problem, Reply, Step


def question_of(problem: Problem) -> str:
    """The last message, which is the question."""
    return asyncio.run(problem.make_env().start())[-1]["content"]


def answered(problem: Problem, text: str, *, finished: bool = True) -> Step:
    """What the environment says to an answer."""
    message = {"role": "assistant", "content": text}
    reply = Reply(message=message, finished=finished, n_tokens=1)
    return asyncio.run(problem.make_env().step(reply))


def is_correct(problem: Problem, text: str) -> bool:
    """Whether an answer counts as correct."""
    return answered(problem, text).metrics["correct"] == 1
