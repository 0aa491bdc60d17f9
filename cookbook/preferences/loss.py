"""Direct preference optimisation: the loss of a pair, and what it is computed from.

torch is imported where the loss runs and nowhere else; `forward_backward_custom` needs it anyway.
Shape: B pairs of a batch; datums come chosen, rejected, chosen, rejected, ...
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tinker

from cookbook.preferences.datums import Pair, answer_mask

if TYPE_CHECKING:
    import torch

PairLoss = Callable[
    ["torch.Tensor", "torch.Tensor", "torch.Tensor", "torch.Tensor", float], "torch.Tensor"
]
"""(chosen, rejected, reference_chosen, reference_rejected, beta) to losses, tensors of shape (B,).

Each tensor holds log-probabilities summed over the tokens of an answer, in nats."""


def dpo_loss(
    chosen: "torch.Tensor",
    rejected: "torch.Tensor",
    reference_chosen: "torch.Tensor",
    reference_rejected: "torch.Tensor",
    beta: float,
) -> "torch.Tensor":
    """Return the DPO loss of each pair (B,).

    Formula: -log sigmoid(beta ((chosen - reference_chosen) - (rejected - reference_rejected))).
    Its derivative by ``chosen`` is -beta sigmoid(-margin), by ``rejected`` the opposite.
    Source: Rafailov et al. 2023 (arXiv:2305.18290), equation 7.

    Args:
        chosen: summed log-probabilities of the chosen answers (B,), in nats.
        rejected: of the rejected ones (B,).
        reference_chosen: of the chosen ones under the reference policy (B,).
        reference_rejected: of the rejected ones under it (B,).
        beta: how much a distance from the reference costs, above 0; 0.1 is usual.
    """
    from torch.nn.functional import logsigmoid

    margin = beta * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -logsigmoid(margin)


def batch_loss(
    pairs: Sequence[Pair],
    reference: Sequence[tuple[float, float]],
    beta: float,
    pair_loss: PairLoss = dpo_loss,
) -> Callable[[list[tinker.Datum], list["torch.Tensor"]], tuple["torch.Tensor", dict[str, float]]]:
    """Return the mean loss over pairs (B,) as `forward_backward_custom` wants it.

    Args:
        pairs: those whose datums it is called with, in that order.
        reference: summed log-probabilities of their (chosen, rejected) answers under the reference.
        beta: see `dpo_loss`.
        pair_loss: the loss of a pair.
    """
    masks = [answer_mask(datum) for pair in pairs for datum in pair.datums]

    def compute(
        _: list[tinker.Datum], logprobs: list["torch.Tensor"]
    ) -> tuple["torch.Tensor", dict[str, float]]:
        import torch

        sums = torch.stack([row[mask].sum() for row, mask in zip(logprobs, masks, strict=True)])
        fixed = torch.tensor(reference, dtype=sums.dtype)
        losses = pair_loss(sums[0::2], sums[1::2], fixed[:, 0], fixed[:, 1], beta)
        return losses.mean(), {}

    return compute


def train_step(
    client: Any,
    pairs: Sequence[Pair],
    reference: Sequence[tuple[float, float]],
    learning_rate: float,
    beta: float,
    pair_loss: PairLoss = dpo_loss,
) -> list[Any]:
    """Take one Adam step on pairs (B,); return the outputs of their datums before it (2B).

    Adam: beta1 0.9, beta2 0.95, eps 1e-8, as in the public tinker-cookbook.
    """
    adam = tinker.AdamParams(learning_rate=learning_rate, beta1=0.9, beta2=0.95, eps=1e-8)
    datums = [datum for pair in pairs for datum in pair.datums]
    loss = batch_loss(pairs, reference, beta, pair_loss)
    gradient = client.forward_backward_custom(datums, loss)
    update = client.optim_step(adam)
    outputs = gradient.result().loss_fn_outputs
    update.result()
    return outputs
