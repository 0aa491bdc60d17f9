"""A model that is not trained, as a part of an environment: an answerer, an opponent, a judge."""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import tinker
from renderers import Renderer

from cookbook.rl.shared_prompts import answer
from cookbook.rows import Message


class FrozenModel:
    """Answers conversations with fixed weights; call it and await the text.

    Args:
        renderer: of the model.
        sampler: a sampling client.
        max_tokens: longest answer.
        temperature: 0 always answers the same.
        key: the same key and conversations give the same answers on the embedded engine.
    """

    def __init__(
        self,
        renderer: Renderer,
        sampler: Any,
        max_tokens: int,
        temperature: float = 1.0,
        key: str = "",
    ) -> None:
        self._renderer, self._sampler, self._key = renderer, sampler, key
        self._settings = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stop": renderer.get_stop_token_ids(),
        }
        self._asked: Counter[tuple[int, ...]] = Counter()

    async def __call__(self, messages: Sequence[Message]) -> str:
        """Return the text of an answer to a conversation that ends with a user message."""
        prompt = self._renderer.render_ids(list(messages), add_generation_prompt=True)  # pyright: ignore
        self._asked[tuple(prompt)] += 1
        seed = random.Random(f"{self._key} {self._asked[tuple(prompt)]} {prompt}").getrandbits(31)
        params = tinker.SamplingParams(**self._settings, seed=seed)
        response = await answer(
            self._sampler.sample(tinker.ModelInput.from_ints(prompt), 1, params)
        )
        return self._renderer.parse_response(list(response.sequences[0].tokens)).content or ""
