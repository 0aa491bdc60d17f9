"""What a request wants to know about its own prompt, answered from the prompt's hidden states.

Owns: prompt log-probabilities, top-k tables, chosen targets, and alternatives drawn at each
position. Row i of the hidden states predicts the prompt's token i + 1, so the first token has no
probability.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from cookbook.engine.logprobs import log_normalizers
from cookbook.engine.sampling import MIN_TEMPERATURE

HEAD_ROWS = 256  # prompt rows whose logits are held at once


@dataclass(frozen=True)
class TopK:
    """Tokens and their log-probabilities at some positions, both (positions, k)."""

    tokens: np.ndarray
    logprobs: np.ndarray


@dataclass(frozen=True, kw_only=True)
class PromptQuestions:
    """What is wanted.

    Attributes:
        logprobs: score the prompt's own tokens.
        topk: the k most likely tokens at each position.
        targets: (P - 1, K) int64, ids to score at each position after the first; -1 asks nothing.
        alternatives: so many independent draws at each position after the first.
        last_n: score and tabulate the last n tokens only.
    """

    logprobs: bool = False
    topk: int = 0
    targets: np.ndarray | None = None
    alternatives: int = 0
    last_n: int | None = None

    @property
    def any(self) -> bool:
        """Whether anything is wanted."""
        return bool(self.logprobs or self.topk or self.targets is not None or self.alternatives)


@dataclass(kw_only=True)
class PromptScores:
    """The answers; None where nothing was asked.

    Attributes:
        logprobs: (P,) float32, NaN where nothing was scored.
        topk: (P, k), log-probabilities NaN where nothing was scored.
        targets: (P - 1, K) float32, 0 where nothing was asked.
        alternatives: (P - 1, k).
    """

    logprobs: np.ndarray | None = None
    topk: TopK | None = None
    targets: np.ndarray | None = None
    alternatives: TopK | None = None


class PromptScorer:
    """Collects one request's answers while its prompt's rows pass by, some at a time."""

    def __init__(
        self,
        questions: PromptQuestions,
        prompt: np.ndarray,
        temperature: float,
        generator: np.random.Generator,
    ) -> None:
        self.questions = questions
        self.prompt = prompt
        self.temperature = temperature
        self.generator = generator
        P, asked = len(prompt), questions
        self.first = P - 1 - asked.last_n if asked.last_n else 0  # the first row that is tabulated
        self.scores = PromptScores(
            logprobs=np.full(P, np.nan, np.float32) if asked.logprobs else None,
            topk=_empty_table(P, asked.topk, np.nan) if asked.topk else None,
            targets=None if asked.targets is None else np.zeros(asked.targets.shape, np.float32),
            alternatives=_empty_table(P - 1, asked.alternatives, 0) if asked.alternatives else None,
        )

    def rows(self) -> slice:
        """Return which of the prompt's rows are needed."""
        whole = self.scores.targets is not None or self.scores.alternatives is not None
        return slice(0 if whole else self.first, len(self.prompt) - 1)

    def answer(self, start: int, logits: torch.Tensor) -> None:
        """Fill in the answers of rows `start`, `start + 1`, ... from their logits (n, V)."""
        norms = log_normalizers(logits)[:, None]
        rows = slice(start, start + len(logits))
        after = slice(max(start, self.first) + 1, start + 1 + len(logits))
        tabulated = slice(after.start - 1 - start, None)
        scores = self.scores
        if scores.logprobs is not None:
            own = _gathered(logits, norms, self.prompt[1:][rows, None])[:, 0]
            scores.logprobs[after] = own[tabulated]
        if scores.topk is not None:
            values, tokens = logits[tabulated].topk(self.questions.topk, dim=-1)
            scores.topk.tokens[after] = tokens.cpu().numpy()
            scores.topk.logprobs[after] = (values - norms[tabulated]).cpu().numpy()
        if scores.targets is not None and self.questions.targets is not None:
            ids = self.questions.targets[rows]
            found = _gathered(logits, norms, ids.clip(min=0))
            scores.targets[rows] = np.where(ids < 0, 0, found)
        if scores.alternatives is not None:
            ids = self._draws(logits)
            scores.alternatives.tokens[rows] = ids
            scores.alternatives.logprobs[rows] = _gathered(logits, norms, ids)

    def _draws(self, logits: torch.Tensor) -> np.ndarray:
        """Return independent draws (n, k) with replacement, at the request's temperature."""
        k = self.questions.alternatives
        if self.temperature < MIN_TEMPERATURE:
            return logits.argmax(-1, keepdim=True).expand(-1, k).cpu().numpy()
        ends = (logits / self.temperature).softmax(-1).cpu().double().cumsum(-1)
        points = torch.from_numpy(self.generator.random((len(logits), k))) * ends[:, -1:]
        return torch.searchsorted(ends, points, right=True).clamp(max=ends.shape[1] - 1).numpy()


def score_prompts(
    scorers: list[PromptScorer],
    hidden: list[torch.Tensor],
    logits_of: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Let every scorer answer from its prompt's hidden states (P, D), many prompts at a time.

    Args:
        scorers: one for each prompt.
        hidden: each prompt's hidden states.
        logits_of: from hidden states (n, D) to logits (n, V).
    """
    needed = [states[scorer.rows()] for scorer, states in zip(scorers, hidden, strict=True)]
    ends = np.cumsum([0] + [len(states) for states in needed])
    rows = torch.cat(needed)
    for start in range(0, len(rows), HEAD_ROWS):
        logits = logits_of(rows[start : start + HEAD_ROWS])
        stop = start + len(logits)
        for scorer, first, end in zip(scorers, ends[:-1], ends[1:], strict=True):
            low, high = max(start, first), min(stop, end)
            if low < high:
                own_row = int(low - first) + scorer.rows().start
                scorer.answer(own_row, logits[low - start : high - start])


def _gathered(logits: torch.Tensor, norms: torch.Tensor, ids: np.ndarray) -> np.ndarray:
    index = torch.from_numpy(np.ascontiguousarray(ids)).to(logits.device)
    return (logits.gather(-1, index) - norms).cpu().numpy()


def _empty_table(rows: int, k: int, logprob: float) -> TopK:
    return TopK(np.zeros((rows, k), np.int64), np.full((rows, k), logprob, np.float32))
