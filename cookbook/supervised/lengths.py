"""How long conversations are, and what a limit on their length costs; measured before training.

Shape: E conversations.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from renderers import Renderer

from cookbook.errors import DataError
from cookbook.rendering import NothingToTrainError, TrainOn, render_training
from cookbook.rows import Conversation


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens of E conversations, and what of them is left within a limit."""

    n_tokens: NDArray[np.int64]
    """Tokens of each whole conversation (E,)."""
    n_trained: NDArray[np.int64]
    """Those of them that are trained (E,)."""
    n_trained_left: NDArray[np.int64]
    """Trained tokens of each that stand within the limit (E,)."""
    max_length: int | None
    """The limit in tokens; None: there is none."""

    @property
    def n_kept(self) -> NDArray[np.int64]:
        """Tokens of each conversation within the limit (E,)."""
        return np.minimum(self.n_tokens, self.max_length or self.n_tokens.max())

    @property
    def n_cut(self) -> int:
        """Conversations that lose their end to the limit."""
        return int((self.n_kept < self.n_tokens).sum())

    @property
    def n_left_out(self) -> int:
        """Conversations of which nothing is left to train on, so that they are left out."""
        return int((self.n_trained_left == 0).sum())

    def batch_tokens(self, batches: Iterable[Sequence[int]]) -> tuple[list[int], list[int]]:
        """Return for each batch of indices its tokens, packed and padded.

        Packed: the conversations one behind the other, nothing between. Padded: as many places for
        each as the longest of the batch takes.
        """
        kept = [self.n_kept[list(batch)] for batch in batches]
        return [int(n.sum()) for n in kept], [int(n.max()) * len(n) for n in kept]

    def __str__(self) -> str:
        median, longest = int(np.median(self.n_tokens)), int(self.n_tokens.max())
        share = self.n_trained.sum() / self.n_tokens.sum()
        lost = 1 - self.n_trained_left.sum() / max(1, self.n_trained.sum())
        return (
            f"{len(self.n_tokens)} conversations, median {median} tokens, longest {longest}; "
            f"{share:.0%} of the tokens are trained\n"
            f"max_length {self.max_length}: {self.n_cut} lose their end, {lost:.1%} of the trained "
            f"tokens are lost, {self.n_left_out} conversations have nothing left and are left out"
        )


def measure_lengths(
    renderer: Renderer,
    conversations: Sequence[Conversation],
    train_on: TrainOn = "all_assistant_messages",
    max_length: int | None = None,
) -> Lengths:
    """Return the lengths of conversations (E,) as they would be trained.

    Args:
        renderer: from `get_renderer`.
        conversations: at least one; of a large set a few hundred are enough.
        train_on: as in `render_training`.
        max_length: as in `render_training`.
    Raises:
        DataError: no conversations.
    """
    if not conversations:
        raise DataError("There is nothing to measure: got no conversations. Give at least one.")
    counts = np.array([_counts(renderer, row, train_on, max_length) for row in conversations])
    n_tokens, n_trained, n_left = counts.T
    return Lengths(
        n_tokens=n_tokens, n_trained=n_trained, n_trained_left=n_left, max_length=max_length
    )


def _counts(
    renderer: Renderer, row: Conversation, train_on: TrainOn, max_length: int | None
) -> tuple[int, int, int]:
    """Return tokens, trained ones, and trained ones within the limit.

    The first token never counts as trained: nothing predicts it.
    """
    messages: Any = row
    try:
        tokens, weights = render_training(renderer, row, train_on)
    except NothingToTrainError:
        return len(renderer.render_ids(messages)), 0, 0
    return len(tokens), int(sum(weights[1:])), int(sum(weights[1:max_length]))
