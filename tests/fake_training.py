"""A training service without a model: its "weights" are the list of steps that were taken.

Two runs have the same weights here exactly if they took the same steps with the same data, order
and step sizes; a step that is replayed or skipped shows. `Server.die_at` ends a run at any call.
"""

import zlib
from types import SimpleNamespace

import numpy as np
import tinker


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the trainer's own may catch it."""


class Future:
    def __init__(self, value, server):
        self._value, self._server = value, server

    def result(self):
        self._server.tick()
        return self._value


class Server:
    """What outlives a trainer: checkpoints, and the count of calls until it is killed."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.checkpoints = {}
        self.ttls = {}
        self.n_clients = self.n_calls = 0
        self.die_at = None
        self.on_call = lambda count: None

    def tick(self, *_):
        self.n_calls += 1
        self.on_call(self.n_calls)
        if self.n_calls == self.die_at:
            raise Killed

    # the service's part of the SDK

    def create_lora_training_client(self, base_model, rank, seed):
        return Future(Client(self, [(base_model, rank, seed)]), self)

    def create_training_client_from_state_with_optimizer(self, path):
        if path not in self.checkpoints:
            raise tinker.RequestFailedError(
                f"there is no checkpoint {path}", request_id="1", category="user"
            )
        return Client(self, self.checkpoints[path])  # no future, as SDK 0.24 has it


class Client:
    """The training client's part of the SDK."""

    def __init__(self, server, weights):
        self.server = server
        self.weights = list(weights)
        self.batch = None
        server.n_clients += 1
        self.run_id = f"run:train:{server.n_clients}"

    def get_tokenizer(self):
        return self.server.tokenizer

    def forward(self, datums, loss_fn):
        assert loss_fn == "cross_entropy"
        outputs = [{"logprobs": self._logprobs(datum)} for datum in datums]
        return self._answer(SimpleNamespace(loss_fn_outputs=outputs, metrics={}))

    def forward_backward(self, datums, loss_fn):
        future = self.forward(datums, loss_fn)
        self.batch = [tuple(datum.model_input.to_ints()) for datum in datums]
        return future

    def forward_backward_custom(self, datums, loss_fn):
        """As the SDK does it: the loss on the client; its gradient is part of the "weights"."""
        import torch

        future = self.forward(datums, "cross_entropy")
        rows = [torch.tensor(self._logprobs(datum).data, requires_grad=True) for datum in datums]
        loss, _ = loss_fn(datums, rows)
        loss.backward()
        self.batch = [
            (tuple(datum.model_input.to_ints()), tuple(row.grad.tolist()))
            for datum, row in zip(datums, rows, strict=True)
        ]
        return future

    def optim_step(self, adam):
        assert self.batch, "an optimiser step without a gradient"
        self.weights.append((tuple(self.batch), adam.learning_rate))
        self.batch = None
        return self._answer(SimpleNamespace(metrics=None))

    def save_state(self, name, ttl_seconds=None):
        return self._save("weights", name, ttl_seconds)

    def save_weights_for_sampler(self, name, ttl_seconds=None):
        return self._save("sampler_weights", name, ttl_seconds)

    def _save(self, segment, name, ttl_seconds):
        path = f"tinker://{self.run_id}/{segment}/{name}"
        assert path not in self.checkpoints, "a checkpoint of that name exists"
        assert self.batch is None, "a gradient would be lost"
        self.server.tick()
        self.checkpoints[path] = list(self.weights)
        self.server.ttls[path] = ttl_seconds
        return self._answer(SimpleNamespace(path=path))

    @property
    def checkpoints(self):
        return self.server.checkpoints

    def _logprobs(self, datum):
        targets = datum.loss_fn_inputs["target_tokens"].data
        state = zlib.crc32(repr(self.weights).encode())
        values = [-1 - (zlib.crc32(b"%d %d" % (state, t)) % 997) / 997 for t in targets]
        return tinker.TensorData.from_numpy(np.array(values, dtype=np.float32))

    def _answer(self, value):
        self.server.tick()
        return Future(value, self.server)
