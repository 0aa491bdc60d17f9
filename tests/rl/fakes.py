"""Environments, samplers and a training service without a model.

The service's "weights" are the list of updates that were made, as in `tests.fake_training`; what a
sampler answers follows from its weights, the prompt and the seed.
"""

import asyncio
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import tinker
from renderers import ParsedResponse, RenderedTokens

from cookbook.rl import Env, Episode, Player, Problem, Reply, Step, Turn
from tests import fake_training

STOP = 2
DIGITS = range(3, 13)


def turn(prompt: Sequence[int], tokens: Sequence[int], logprobs: Sequence[float] = (), **more: Any):
    """A turn that was sampled, by default with the log-probabilities -0.1, -0.2, ..."""
    reply = Reply(
        message={"role": "assistant", "content": "x"}, finished=True, n_tokens=len(tokens)
    )
    known = list(logprobs) or [-0.1 * (i + 1) for i in range(len(tokens))]
    return Turn(
        **{"reward": 0.0, "metrics": {}, **more},
        prompt=list(prompt),
        tokens=list(tokens),
        logprobs=known,
        reply=reply,
    )


def episode(*turns: Turn, **more: Any) -> Episode:
    return Episode(**{"ending": "done", **more}, messages=[], opening=0, turns=turns)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


class Talk:
    """An environment of a script: a step, an error to raise, or a coroutine function to await."""

    def __init__(self, *script: Any, opening: Any = "9") -> None:
        self.script, self.opening = iter(script or [Step(reward=1.0)]), opening
        self.replies: list[Reply] = []

    async def start(self) -> Sequence[Any]:
        return [user(await self._played(self.opening))]

    async def step(self, reply: Reply) -> Step:
        self.replies.append(reply)
        return await self._played(next(self.script))

    async def _played(self, item: Any) -> Any:
        if isinstance(item, BaseException):
            raise item
        return await item() if callable(item) else item


async def forever() -> Any:
    await asyncio.Event().wait()


def more(text: str, **fields: Any) -> Step:
    """A step after which the episode goes on."""
    return Step(done=False, messages=[user(text)], **fields)


def problem(name: str, make_env: Callable[[], Env] = Talk, **fields: Any) -> Problem:
    return Problem(name, make_env, **fields)


class TokenRenderer:
    """A renderer whose texts are token numbers, so that a model of any vocabulary can be used."""

    is_prefix_stable = True

    def render_ids(self, messages, *, tools=None, add_generation_prompt=False):
        return [1, *(int(part) for m in messages for part in m["content"].split())]

    def parse_response(self, token_ids, *, tools=None, prompt_ids=None):
        return ParsedResponse(content=" ".join(str(t) for t in token_ids if t != STOP))

    def get_stop_token_ids(self):
        return [STOP]

    def bridge_to_next_turn(self, prompt, completion, new_messages, *, tools=None):
        result = RenderedTokens()
        result.token_ids.extend([*prompt, *completion, *self.render_ids(new_messages)[1:]])
        return result


def player(renderer: Any = None, **settings: Any) -> Player:
    defaults = {"max_tokens": 4, "env_timeout_s": 30.0}
    return Player(renderer=renderer or TokenRenderer(), **{**defaults, **settings})


@dataclass
class Call:
    """One sampling request."""

    prompt: tuple[int, ...]
    n: int
    seed: int
    stop: Any
    max_tokens: int
    sequences: list[Any] = field(default_factory=list)


def digit_reply(rng: random.Random, max_tokens: int) -> list[int]:
    return [rng.choice(DIGITS), STOP]


class Sampler:
    """Answers with what `reply` makes of a random stream; all requests are in `calls`."""

    def __init__(self, reply: Any = digit_reply, salt: int = 0, delay: Any = None) -> None:
        self.reply, self.salt, self.delay = reply, salt, delay
        self.calls: list[Call] = []

    def sample(self, prompt: tinker.ModelInput, num_samples: int, params: tinker.SamplingParams):
        call = Call(
            tuple(prompt.to_ints()), num_samples, params.seed or 0, params.stop, params.max_tokens
        )
        self.calls.append(call)
        return self._answer(call)

    async def _answer(self, call: Call) -> Any:
        if self.delay:
            await asyncio.sleep(self.delay())
        rng = random.Random(f"{self.salt} {call.prompt} {call.seed}")
        for _ in range(call.n):
            tokens = self.reply(rng, call.max_tokens)
            logprobs = [-rng.random() for _ in tokens]
            ended = "stop" if tokens[-1] == STOP else "length"
            call.sequences.append(
                SimpleNamespace(tokens=tokens, logprobs=logprobs, stop_reason=ended)
            )
        return SimpleNamespace(sequences=call.sequences)

    def compute_logprobs(self, prompt: tinker.ModelInput):
        ids = prompt.to_ints()

        async def found():
            return [None, *(-(self.salt + token) / 100 for token in ids[1:])]

        return found()


class Service(fake_training.Server):
    """The service's part of the SDK that reinforcement learning uses."""

    def __init__(self, tokenizer: Any = None) -> None:
        super().__init__(tokenizer)
        self.samplers: list[CountingSampler] = []
        self.references: list[dict[str, str]] = []
        self.updates: list[tuple[str, Any]] = []
        self.started_from: list[str] = []

    def create_lora_training_client(self, base_model, rank, seed):
        return fake_training.Future(Client(self, [(base_model, rank, seed)]), self)

    def create_training_client_from_state(self, path):
        self.started_from.append(path)
        return self._client(path)

    def create_training_client_from_state_with_optimizer(self, path):
        return self._client(path)

    def create_sampling_client(self, **which):
        self.references.append(which)
        return Sampler(salt=7)

    def _client(self, path):
        if path not in self.checkpoints:
            raise tinker.RequestFailedError(f"no {path}", request_id="1", category="user")
        return Client(self, self.checkpoints[path])


class CountingSampler(Sampler):
    """A sampler of certain weights."""

    def __init__(self, service: Service, weights: list[Any]) -> None:
        super().__init__(salt=zlib.crc32(repr(weights).encode()))
        self.service, self.n_updates = service, len(weights) - 1

    def sample(self, prompt, num_samples, params):
        self.service.tick()
        return super().sample(prompt, num_samples, params)


class Client(fake_training.Client):
    """The training client's part; an update is known by its tokens and advantages."""

    def save_weights_and_get_sampling_client(self):
        assert self.batch is None, "a gradient would be lost"
        self.server.tick()
        sampler = CountingSampler(self.server, self.weights)
        self.server.samplers.append(sampler)
        return fake_training.Future(sampler, self.server)

    def forward_backward(self, datums, loss_fn, loss_fn_config=None):
        assert self.batch is None, "a second gradient before the step"
        self.server.updates.append((loss_fn, loss_fn_config))
        self.batch = [
            (
                tuple(datum.model_input.to_ints()),
                tuple(np.round(datum.loss_fn_inputs["advantages"].data, 4).tolist()),
            )
            for datum in datums
        ]
        outputs = [{"logprobs": datum.loss_fn_inputs["logprobs"]} for datum in datums]
        return self._answer(SimpleNamespace(loss_fn_outputs=outputs, metrics={}))
