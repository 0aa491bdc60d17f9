"""One sampling request for all episodes that read the same prompt at the same moment."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import tinker
from renderers import Renderer


class SharedPrompts:
    """Makes one request of all requests for the same prompt that come in the same moment.

    The episodes of a group start with the same prompt, which the server then reads once.
    """

    def __init__(
        self, renderer: Renderer, client: Any, max_tokens: int, temperature: float, key: str
    ) -> None:
        self._client = client
        self._settings = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "stop": renderer.get_stop_token_ids(),
        }
        self._key = key
        self._asked: Counter[tuple[int, ...]] = Counter()
        self._waiting: dict[tuple[int, ...], list[asyncio.Future[Any]]] = {}
        self._requests: set[asyncio.Task[None]] = set()

    async def sample(self, prompt: Sequence[int]) -> Any:
        """Return one sampled sequence."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._send)  # after all that is ready to ask now has asked
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.setdefault(tuple(prompt), []).append(future)
        return await future

    def _send(self) -> None:
        for prompt, futures in self._waiting.items():
            task = asyncio.ensure_future(self._request(prompt, futures))
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)
        self._waiting = {}

    async def _request(self, prompt: tuple[int, ...], futures: list[asyncio.Future[Any]]) -> None:
        params = tinker.SamplingParams(**self._settings, seed=self._seed(prompt))
        try:
            pending = self._client.sample(
                tinker.ModelInput.from_ints(list(prompt)), len(futures), params
            )
            response = await answer(pending)
        except BaseException as error:
            for future in futures:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            for future, sequence in zip(futures, response.sequences, strict=True):
                if not future.done():  # its episode may have been given up meanwhile
                    future.set_result(sequence)

    def _seed(self, prompt: tuple[int, ...]) -> int:
        # Of the prompt rather than of the order of requests, which depends on what ends first.
        self._asked[prompt] += 1
        return random.Random(f"{self._key} {self._asked[prompt]} {prompt}").getrandbits(31)


async def answer(pending: Any) -> Any:
    """Return the SDK's answer: 0.38 gives an awaitable, 0.24 a concurrent future."""
    return await (pending if hasattr(pending, "__await__") else asyncio.wrap_future(pending))
