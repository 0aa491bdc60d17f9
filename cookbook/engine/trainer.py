"""One training run's state and its operations: forward, backward, optimiser step.

Owns: an adapter and its gradients. Everything here runs on the worker thread.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from cookbook.engine.adam import Adam, AdamSettings
from cookbook.engine.base import Weights
from cookbook.engine.decoder import forward_packed
from cookbook.engine.errors import UserError
from cookbook.engine.logprobs import target_logprobs
from cookbook.engine.lora import Adapter
from cookbook.engine.losses import LossCall, ratio_metrics, ratio_sums
from cookbook.engine.packing import micro_batches, pack


@dataclass(frozen=True)
class TrainingDatum:
    """One validated datum.

    Attributes:
        tokens: (N,) int64 model input.
        targets: (N,) or (N, K) int64; `targets[i]` is predicted from position i.
        inputs: the loss's float32 inputs, each of the targets' shape.
    """

    tokens: np.ndarray
    targets: np.ndarray
    inputs: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class LossResult:
    """What a forward (and backward) pass returns: per datum logprobs, and summed metrics."""

    logprobs: list[np.ndarray]  # float32, each of its targets' shape
    metrics: dict[str, float]


class TrainingRun:
    """An adapter being trained on top of shared base weights."""

    def __init__(self, base: Weights, adapter: Adapter) -> None:
        self.base = base
        self.adapter = adapter
        self.adam = Adam(adapter.parameters())

    def forward(self, data: list[TrainingDatum], call: LossCall) -> LossResult:
        """Return logprobs and loss without touching gradients."""
        with torch.no_grad():
            return self._run(data, call, backward=False)

    def forward_backward(self, data: list[TrainingDatum], call: LossCall) -> LossResult:
        """Return logprobs and loss; gradients are added to those already there."""
        return self._run(data, call, backward=True)

    def _run(self, data: list[TrainingDatum], call: LossCall, backward: bool) -> LossResult:
        logprobs: list[np.ndarray] = [np.empty(0, np.float32)] * len(data)
        sums: defaultdict[str, float] = defaultdict(float)
        for members in micro_batches([datum.tokens for datum in data]):
            values, found = self._micro_batch([data[i] for i in members], call, backward)
            for name, value in found.items():
                sums[name] += value
            for i, value in zip(members, values, strict=True):
                logprobs[i] = value
        tokens = float(sum(len(datum.tokens) for datum in data))
        metrics = {"loss:sum": sums.pop("loss", 0.0), "num_tokens:sum": tokens}
        return LossResult(logprobs, metrics | ratio_metrics(sums))

    def _micro_batch(
        self, data: list[TrainingDatum], call: LossCall, backward: bool
    ) -> tuple[list[np.ndarray], dict[str, float]]:
        """Return each datum's logprobs, and the sums that metrics are made of."""
        batch = pack([datum.tokens for datum in data])
        device = self.base.device
        hidden = forward_packed(self.base, batch.to(device), self.adapter)
        # K targets at one position share their row of hidden states.
        rows = [np.repeat(r, d.targets[0].size) for r, d in zip(batch.rows, data, strict=True)]
        inputs = {
            name: _concatenated([d.inputs[name] for d in data], device) for name in data[0].inputs
        }
        inputs["datum"] = _concatenated(
            [np.full(d.targets.size, i) for i, d in enumerate(data)], device
        )
        logprobs = target_logprobs(
            self.base,
            self.adapter,
            hidden,
            _concatenated(rows, device),
            _concatenated([d.targets for d in data], device),
            needs_grad=inputs[call.loss.trained] != 0,
        )
        loss = call.loss.formula(logprobs, inputs, call.config).sum()
        if backward and loss.requires_grad:
            loss.backward()
        found = logprobs.detach()
        sums = {"loss": float(loss.detach()), **ratio_sums(call, found, inputs)}
        ends = np.cumsum([d.targets.size for d in data])[:-1]
        parts = np.split(found.cpu().numpy(), ends)
        shaped = [part.reshape(d.targets.shape) for part, d in zip(parts, data, strict=True)]
        return shaped, sums

    def optim_step(self, settings: AdamSettings) -> dict[str, float]:
        """Apply AdamW and clear the gradients.

        Without any gradient since the last step this does nothing and reports a norm of 0.
        """
        parameters = self.adapter.parameters()
        if all(parameter.grad is None for parameter in parameters):
            return {"unclipped_grad_l2:mean": 0.0}
        limit = settings.grad_clip_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
        finite = bool(np.isfinite(norm))
        if finite:
            self.adam.step(settings)
        for parameter in parameters:
            parameter.grad = None
        if not finite:
            raise UserError(
                f"the gradient's norm is {norm}: nothing was applied and the gradients were "
                "cleared. A smaller learning rate or smaller loss inputs keep it finite"
            )
        return {"unclipped_grad_l2:mean": norm}


def _concatenated(arrays: list[np.ndarray], device: torch.device) -> torch.Tensor:
    """Return all arrays flattened into one 1-D tensor."""
    return torch.from_numpy(np.concatenate([array.ravel() for array in arrays])).to(device)
