"""One update: rows to datums, the loss with its gradient, Adam's step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tinker

from cookbook.rl.datums import Row
from cookbook.rl.metrics import sampler_gap


def train_step(
    client: Any,
    rows_by_group: Sequence[Sequence[Row]],
    learning_rate: float,
    loss_fn: str = "importance_sampling",
    loss_fn_config: Mapping[str, float] | None = None,
    substeps: int = 1,
) -> dict[str, float]:
    """Take the Adam steps on the rows of several groups; return the gap of sampler and trainer.

    All requests are submitted before any is waited for. With several substeps the groups are dealt
    out; from the second on the samples are a little off-policy, which the loss's ratio corrects.
    Adam: beta1 0.9, beta2 0.95, eps 1e-8, as in the public tinker-cookbook.
    """
    adam = tinker.AdamParams(learning_rate=learning_rate, beta1=0.9, beta2=0.95, eps=1e-8)
    settings = dict(loss_fn_config) if loss_fn_config else None
    dealt = [rows_by_group[i::substeps] for i in range(min(substeps, len(rows_by_group)))]
    batches = [[row for rows in groups for row in rows] for groups in dealt]
    pending = [
        (
            client.forward_backward([row.datum() for row in rows], loss_fn, settings),
            client.optim_step(adam),
        )
        for rows in batches
    ]
    logprobs: list[np.ndarray] = []
    for gradient, update in pending:
        outputs = gradient.result().loss_fn_outputs
        logprobs += [np.asarray(output["logprobs"].data) for output in outputs]
        update.result()
    return sampler_gap([row for rows in batches for row in rows], logprobs)
