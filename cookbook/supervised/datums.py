"""Conversations to the training examples that the server takes.

Shapes: a conversation of T tokens gives one datum of N = T - 1 positions; position i holds token i,
its target token i + 1 and that target's weight.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import tinker
from renderers import Renderer, ToolSpec

from cookbook.errors import DataError
from cookbook.rendering import NothingToTrainError, TrainOn, render_training
from cookbook.rows import Conversation


def datum_from_tokens(
    tokens: Sequence[int], weights: Sequence[float], reduction: Literal["mean", "none"] = "mean"
) -> tinker.Datum:
    """Return the datum that predicts each token from the ones before it.

    Args:
        tokens: the conversation (T,), at least 2.
        weights: one for each token (T,), 0 for what is not trained. The first falls away, as
            nothing predicts the first token.
        reduction: "mean" scales the weights to sum 1, so that a batch's loss is the sum over its
            examples of their mean NLL and long examples count no more than short ones; "none"
            keeps them.
    Raises:
        DataError: lengths differ, or no weight after the first is positive.
    """
    if len(tokens) != len(weights):
        raise DataError(f"Got {len(tokens)} tokens but {len(weights)} weights; give one for each.")
    targets, kept = list(tokens[1:]), [float(weight) for weight in weights[1:]]
    total = sum(kept)
    if total <= 0:
        raise DataError("No token after the first has a positive weight; nothing would be trained.")
    if reduction == "mean":
        kept = [weight / total for weight in kept]
    return tinker.Datum(
        model_input=tinker.ModelInput.from_ints(list(tokens[:-1])),
        loss_fn_inputs={
            "target_tokens": tinker.TensorData(data=targets, dtype="int64", shape=[len(targets)]),
            "weights": tinker.TensorData(data=kept, dtype="float32", shape=[len(kept)]),
        },
    )


def build_datums(
    renderer: Renderer,
    conversations: Sequence[Conversation],
    train_on: TrainOn = "all_assistant_messages",
    max_length: int | None = None,
    tools: list[ToolSpec] | None = None,
) -> list[tinker.Datum]:
    """Return one datum per conversation; those with nothing to train are left out with a warning.

    Arguments: see `cookbook.rendering.render_training`.

    Raises:
        NothingToTrainError: none is left.
    """
    datums = []
    for conversation in conversations:
        try:
            tokens, weights = render_training(renderer, conversation, train_on, max_length, tools)
        except NothingToTrainError as error:
            if len(conversations) == 1:
                raise
            warnings.warn(f"A conversation is left out. {error}", stacklevel=2)
            continue
        datums.append(datum_from_tokens(tokens, weights))
    if conversations and not datums:
        raise NothingToTrainError(
            f"None of {len(conversations)} conversations has a token to train with "
            f"train_on={train_on!r} and max_length={max_length}. Change these, or the data."
        )
    return datums
