"""What is computed: prompts and conversations of fixed token counts, the same for every program.

Tokens are drawn at random (a fixed seed) from the vocabulary: no program here is faster on real
text, and random tokens end no sequence early.
"""

from dataclasses import dataclass

import numpy as np

VOCABULARY = 49152
FIRST_PLAIN_TOKEN = 20  # those before it are special


@dataclass(frozen=True)
class Sampling:
    """`copies` answers of `new_tokens` to each prompt."""

    prompts: list[list[int]]
    copies: int
    new_tokens: int

    @property
    def sequences(self) -> int:
        """How many sequences are drawn."""
        return len(self.prompts) * self.copies


@dataclass(frozen=True)
class Rows:
    """Token rows to train on; `weights` are 0 where a row is prompt."""

    tokens: list[list[int]]
    weights: list[list[float]]


def sampling(prompts: int, copies: int, new_tokens: int, prompt_tokens: int = 60) -> Sampling:
    """Return a sampling job."""
    return Sampling([_tokens(i, prompt_tokens) for i in range(prompts)], copies, new_tokens)


def conversations(count: int = 16) -> Rows:
    """Return conversations of mixed length, 40 to 150 tokens; two thirds of each are trained."""
    rng = np.random.default_rng(0)
    rows = [_tokens(100 + i, int(n)) for i, n in enumerate(rng.integers(40, 151, count))]
    return Rows(rows, [[float(k >= len(row) // 3) for k in range(1, len(row))] for row in rows])


def answers(job: Sampling) -> Rows:
    """Return what training on the job's samples trains on: prompts with random new tokens."""
    rows, weights = [], []
    for i, prompt in enumerate(job.prompts):
        for copy in range(job.copies):
            rows.append(prompt + _tokens(1000 + 100 * i + copy, job.new_tokens))
            weights.append([0.0] * (len(prompt) - 1) + [1.0] * job.new_tokens)
    return Rows(rows, weights)


def _tokens(seed: int, count: int) -> list[int]:
    rng = np.random.default_rng(seed)
    return rng.integers(FIRST_PLAIN_TOKEN, VOCABULARY, count).tolist()
