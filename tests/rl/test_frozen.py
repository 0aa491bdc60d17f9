"""A model of fixed weights as a part of an environment."""

import asyncio

from cookbook.rl import FrozenModel
from tests.rl.fakes import STOP, Sampler, TokenRenderer, user


def asked(*texts, sampler=None, **settings):
    sampler = sampler or Sampler()
    model = FrozenModel(TokenRenderer(), sampler, max_tokens=7, **settings)

    async def ask():
        return [await model([user(text)]) for text in texts]

    return asyncio.run(ask()), sampler.calls


def test_a_conversation_is_answered_by_one_sample():
    (text,), (call,) = asked("20")
    assert (call.prompt, call.n, call.max_tokens, call.stop) == ((1, 20), 1, 7, [STOP])
    assert text == str(call.sequences[0].tokens[0])


def test_the_same_key_gives_the_same_answers_and_a_repeat_another_one():
    many = ["20"] * 12
    first, calls = asked(*many, key="a")
    assert asked(*many, key="a")[0] == first
    assert asked(*many, key="b")[0] != first
    assert len({call.seed for call in calls}) == 12


def test_many_are_answered_at_the_same_time():
    model = FrozenModel(TokenRenderer(), Sampler(delay=lambda: 0.001), max_tokens=4)

    async def ask():
        return await asyncio.gather(*[model([user(str(n))]) for n in range(20, 60)])

    assert len(asyncio.run(ask())) == 40
