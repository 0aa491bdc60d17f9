"""What a step logs about its episodes and its update; `cookbook.analysis.METRICS` explains it."""

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from cookbook.rl.datums import Row
from cookbook.rl.episodes import Episode, Group

GOOD = 0.5
"""An episode with at least this reward is good, for `by_group/frac_all_good`."""


def episode_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Return the figures of the groups of one step, all of them and by tag."""
    metrics = _of_set("env/all", groups)
    tags = sorted({group.problem.tag for group in groups if group.problem.tag})
    if len({group.problem.tag for group in groups}) > 1:
        for tag in tags:
            metrics |= _of_set(f"env/{tag}", [g for g in groups if g.problem.tag == tag])
    failures = Counter(why.split(":")[0] for group in groups for why in group.failures)
    return metrics | {
        "rollout_errors/error": float(failures["error"]),
        "rollout_errors/timeout": float(failures["timeout"]),
    }


def _of_set(prefix: str, groups: Sequence[Group]) -> dict[str, float]:
    episodes = [episode for group in groups for episode in group.episodes]
    if not episodes:
        return {}
    turns = [turn for episode in episodes for turn in episode.turns]
    own = _means([episode.metrics for episode in episodes])
    return {
        f"{prefix}/reward/total": fmean(episode.reward for episode in episodes),
        **{f"{prefix}/{name}": value for name, value in own.items()},
        **{f"{prefix}/by_group/{name}": value for name, value in _by_group(groups).items()},
        f"{prefix}/ac_tokens_per_turn": fmean(len(turn.tokens) for turn in turns),
        f"{prefix}/ob_tokens_per_turn": fmean(len(turn.prompt) for turn in turns),
        f"{prefix}/turns_per_episode": len(turns) / len(episodes),
        f"{prefix}/total_episodes": float(len(episodes)),
        f"{prefix}/total_turns": float(len(turns)),
        f"{prefix}/total_ac_tokens": float(sum(len(turn.tokens) for turn in turns)),
        f"{prefix}/frac_unfinished": _unfinished(episodes),
    }


def _means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    names = sorted({name for row in rows for name in row})
    return {name: fmean(row[name] for row in rows if name in row) for name in names}


def _by_group(groups: Sequence[Group]) -> dict[str, float]:
    rewards = [group.rewards for group in groups if len(group.episodes)]
    return {
        "frac_mixed": fmean(float(np.ptp(r) > 0) for r in rewards),
        "frac_all_good": fmean(float(r.min() >= GOOD) for r in rewards),
        "frac_all_bad": fmean(float(r.max() < GOOD) for r in rewards),
    }


def _unfinished(episodes: Sequence[Episode]) -> float:
    """Return the share of episodes whose last reply, or which themselves, were cut off."""
    cut = [e.ending != "done" or not e.turns[-1].reply.finished for e in episodes]
    return fmean(map(float, cut))


def sampler_entropy(groups: Sequence[Group]) -> float:
    """Return the mean of -log q over all sampled tokens, in nats: an estimate of the entropy."""
    logprobs = [
        value
        for group in groups
        for episode in group.episodes
        for turn in episode.turns
        for value in turn.logprobs
    ]
    return -fmean(logprobs) if logprobs else 0.0


def sampler_gap(rows: Sequence[Row], trained_logprobs: Sequence[np.ndarray]) -> dict[str, float]:
    """Return how far the trainer's log-probabilities p are from the sampler's q, before the update.

    Args:
        rows: what was trained.
        trained_logprobs: the server's answer for each row's datum, (T - 1,).
    Returns:
        v1: the mean of q - p over sampled tokens, an unbiased estimate of KL(sampler || trainer);
        v2: half the mean of its square, always at least 0. Both near 0 for fresh samples.
    Source: Schulman 2020, "Approximating KL Divergence", k1 and k2.
    """
    gaps = np.concatenate(
        [
            (row.logprobs[1:] - trained)[row.sampled[1:]]
            for row, trained in zip(rows, trained_logprobs, strict=True)
        ]
    )
    return {
        "optim/kl_sample_train_v1": float(gaps.mean()),
        "optim/kl_sample_train_v2": float(0.5 * (gaps**2).mean()),
    }
