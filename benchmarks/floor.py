"""The matrix products alone: what no program that multiplies by these weights can go below."""

import time
from statistics import median

import torch

from benchmarks.workloads import Rows, Sampling
from cookbook.engine.base import Weights
from cookbook.engine.linear import Matrix


class Floor:
    """Times the frozen matrices' products with as many rows as a job has."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def sampling(self, job: Sampling) -> float:
        """Every new token of every sequence once through all matrices, and each prompt once."""
        prompt_rows = sum(map(len, job.prompts))
        steps = (job.new_tokens - 1) * self._pass(job.sequences)
        return steps + self._layers(prompt_rows) + self._head(job.sequences)

    def training(self, rows: Rows, shared: int = 0) -> float:
        """Forward, and the gradient by the input, of all tokens but `shared` ones.

        The frozen weights need no gradient, so a step is two passes, not three.
        """
        count = sum(len(row) - 1 for row in rows.tokens) - shared
        trained = sum(weight != 0 for row in rows.weights for weight in row)
        return 2 * (self._layers(count) + self._head(trained))

    def _pass(self, rows: int) -> float:
        return self._layers(rows) + self._head(rows)

    def _layers(self, rows: int) -> float:
        layers = self.weights.layers
        return _seconds([m for i in layers for m in (i.qkv, i.output, i.gate_up, i.down)], rows)

    def _head(self, rows: int) -> float:
        return _seconds([self.weights.unembedding], rows)


def _seconds(matrices: list[Matrix], rows: int) -> float:
    """Seconds of one product with each matrix in turn, so that none waits in the cache for it.

    The fastest form of three, median of 5 rounds.
    """
    x = {m.values.shape[1]: torch.randn(rows, m.values.shape[1]) for m in matrices}
    x = {width: values.to(matrices[0].values.dtype) for width, values in x.items()}
    best = float("inf")
    for form in (
        lambda m, x: m.product(x),
        lambda m, x: m.values @ x.T,
        lambda m, x: x @ m.values.T,
    ):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            for m in matrices:
                form(m, x[m.values.shape[1]])
            seconds.append(time.perf_counter() - start)
        best = min(best, median(seconds))
    return best
