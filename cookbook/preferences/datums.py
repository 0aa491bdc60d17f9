"""A comparison to two training examples, the chosen answer's and the rejected one's.

Truncation from the right, as in supervised training, would cut what a comparison is about. So a
pair that is too long loses the oldest turns of its prompt instead, the same ones in both, and never
a token of an answer. Shapes: T tokens of a row, N = T - 1 positions of its datum.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tinker
from renderers import Renderer

from cookbook.errors import DataError
from cookbook.preferences.comparison import Comparison
from cookbook.rendering import render_training
from cookbook.rows import Conversation
from cookbook.supervised import datum_from_tokens, whole_input

Tokens = tuple[list[int], list[float]]
"""Tokens (T,) and whether each is trained (T,)."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both answers of a comparison as datums; weights are 1 on an answer's tokens, else 0."""

    chosen: tinker.Datum
    rejected: tinker.Datum

    @property
    def datums(self) -> list[tinker.Datum]:
        """The two datums, the chosen one first."""
        return [self.chosen, self.rejected]

    @property
    def key(self) -> str:
        """A digest of all tokens: pairs with the same key are the same pair."""
        tokens = [whole_input(datum).to_ints() for datum in self.datums]
        return hashlib.sha256(repr(tokens).encode()).hexdigest()[:16]


def build_pair(renderer: Renderer, comparison: Comparison, max_length: int | None = None) -> Pair:
    """Return the chosen and the rejected answer of a comparison as datums.

    Args:
        renderer: from `cookbook.rendering.get_renderer`.
        comparison: not a tie.
        max_length: longest T; if one of the two is longer, the oldest turns of the prompt are left
            out of both, see `fit_prompt`.
    Raises:
        DataError: it is a tie, or too long even with the last turn of the prompt alone.
    """
    answers = (comparison.chosen, comparison.rejected)

    def render(prompt: Conversation) -> list[Tokens]:
        rows = [[*prompt, {"role": "assistant", "content": answer}] for answer in answers]
        return [render_training(renderer, row, "last_assistant_message") for row in rows]

    prompt = fit_prompt(
        comparison.prompt,
        lambda kept: max(len(tokens) for tokens, _ in render(kept)),
        max_length,
    )
    chosen, rejected = (datum_from_tokens(*row, reduction="none") for row in render(prompt))
    return Pair(chosen=chosen, rejected=rejected)


def fit_prompt(
    prompt: Conversation, length_of: Callable[[Conversation], int], max_length: int | None
) -> Conversation:
    """Return the prompt without as many of its oldest turns as it takes to keep within a length.

    Whole messages go, from the oldest on; a system message at the start stays, and so does the
    last message. What is kept begins with a user's turn where it can.

    Args:
        prompt: messages that end with the turn to be answered.
        length_of: number of tokens of everything that is built from a prompt.
        max_length: longest length; None: no limit.
    Raises:
        DataError: too long even with the last message alone.
    """
    if max_length is None or length_of(prompt) <= max_length:
        return prompt
    first = 1 if prompt[0]["role"] == "system" else 0
    system, turns = prompt[:first], prompt[first:]
    starts = [i for i in range(1, len(turns)) if turns[i]["role"] == "user"]
    if turns and not (starts and starts[-1] == len(turns) - 1):
        starts.append(len(turns) - 1)
    lengths = []
    for start in starts:
        kept = [*system, *turns[start:]]
        lengths.append(length_of(kept))
        if lengths[-1] <= max_length:
            return kept
    least = min(lengths, default=length_of(prompt))
    raise DataError(
        f"A comparison takes {least} tokens with the last turn of its prompt alone, but "
        f"max_length={max_length}. Its answers are never cut: allow at least {least}, or leave "
        "it out."
    )


def answer_mask(datum: tinker.Datum) -> np.ndarray:
    """Return which positions (N,) predict a token of the answer."""
    return np.asarray(datum.loss_fn_inputs["weights"].data) > 0
