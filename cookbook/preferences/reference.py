"""The reference policy: log-probabilities of every answer under the weights a run starts from.

They are computed once, before the first step, and kept in `reference.jsonl` of the run's folder, a
line for each pair. A resumed run reads them: computed again from the resumed weights they would be
another reference, and the run another run. The training client computes them itself, so that policy
and reference agree to the last bit at the start; a sampler may round in another way.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cookbook.errors import ConfigError
from cookbook.preferences.datums import Pair, answer_mask
from cookbook.runlog import lines
from cookbook.supervised import target_logprobs

FILE = "reference.jsonl"
PAIRS_PER_SAVE = 64
"""A start that is killed keeps all pairs but the last so many."""

PairLogprobs = tuple[np.ndarray, np.ndarray]
"""Log-probability of each token of the chosen and of the rejected answer, float64."""


def reference_logprobs(
    client: Any, pairs: Sequence[Pair], log_path: Path, first_step: int
) -> list[PairLogprobs]:
    """Return the reference log-probabilities of each pair, from the run's file where it has them.

    Args:
        client: the training client, with the weights that the run starts from if `first_step` is 0.
        pairs: all that the run will train and evaluate on.
        log_path: the run's folder.
        first_step: optimiser steps that the client's weights have had.
    Raises:
        ConfigError: the run has begun, and its file lacks some of the pairs.
    """
    file = log_path / FILE
    known = _read(file)
    missing = {pair.key: pair for pair in pairs if pair.key not in known}
    if missing and first_step:
        raise ConfigError(
            f"{file} lacks {len(missing)} of {len(pairs)} pairs, but the run has had {first_step} "
            "steps: its weights are no longer the reference. Either that file or the data set was "
            "changed. Bring it back, or pass if_exists='overwrite' to start anew."
        )
    if missing:
        known |= _compute(client, list(missing.values()), file)
    return [known[pair.key] for pair in pairs]


def pair_logprobs(client: Any, pairs: Sequence[Pair]) -> list[PairLogprobs]:
    """Return the log-probabilities of each pair's answers under a client's weights."""
    datums = [datum for pair in pairs for datum in pair.datums]
    return split_outputs(pairs, target_logprobs(client, datums))


def split_outputs(pairs: Sequence[Pair], logprobs: Sequence[np.ndarray]) -> list[PairLogprobs]:
    """Return the answers' part of log-probabilities, one (N,) for each datum of the pairs."""
    datums = [datum for pair in pairs for datum in pair.datums]
    answers = [_exact(row)[answer_mask(datum)] for row, datum in zip(logprobs, datums, strict=True)]
    return list(zip(answers[0::2], answers[1::2], strict=True))


def sums(logprobs: Sequence[PairLogprobs]) -> list[tuple[float, float]]:
    """Return the summed log-probabilities of each pair's answers, in nats."""
    return [(float(chosen.sum()), float(rejected.sum())) for chosen, rejected in logprobs]


def _read(file: Path) -> dict[str, PairLogprobs]:
    lines.repair(file)
    return {
        record["pair"]: (_exact(record["chosen"]), _exact(record["rejected"]))
        for record in lines.read(file)
    }


def _compute(client: Any, pairs: Sequence[Pair], file: Path) -> dict[str, PairLogprobs]:
    found: dict[str, PairLogprobs] = {}
    with lines.open_for_append(file) as out:
        for start in range(0, len(pairs), PAIRS_PER_SAVE):
            chunk = pairs[start : start + PAIRS_PER_SAVE]
            for pair, logprobs in zip(chunk, pair_logprobs(client, chunk), strict=True):
                chosen, rejected = ([_short(p) for p in row] for row in logprobs)
                lines.append(out, {"pair": pair.key, "chosen": chosen, "rejected": rejected})
                found[pair.key] = logprobs
    return found


def _exact(logprobs: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the 32-bit numbers that servers send as float64, the same ones however spelled."""
    return np.asarray(logprobs, dtype=np.float32).astype(float)


def _short(logprob: float) -> float:
    """Return the shortest decimal of a 32-bit number."""
    return float(str(np.float32(logprob)))
