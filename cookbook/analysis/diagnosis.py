"""Signs of a run gone wrong, each with its likely cause and what to change."""

import math
from collections.abc import Callable

import numpy as np

from cookbook.analysis.metrics import describe
from cookbook.analysis.run import Floats, Run, change
from cookbook.analysis.wording import number, sentence_case

Rule = Callable[[Run], str | None]
HIGH_NLL = 8.0  # nats per token; guessing among SmolLM2's 49,152 tokens has 10.8


def signs_of_trouble(run: Run) -> list[str]:
    """Return a sentence or two for each sign of trouble in `run`; none for a healthy run."""
    found = (rule(run) for rule in RULES)
    return [text for text in found if text]


def _not_finite(run: Run) -> str | None:
    for name in run.metrics():
        series = run.series(name)
        bad = series.steps[~np.isfinite(series.values)]
        if len(bad):
            return (
                f"{name} is not finite at {len(bad)} of {len(series)} steps, first at step "
                f"{bad[0]:.0f}: the run diverged. Lower learning_rate and start again from a "
                "checkpoint before that step."
            )
    return None


def _nothing_trained(run: Run) -> str | None:
    rates = run.series("learning_rate").finite.values
    if len(rates) and not rates.any():
        return "The learning rate is 0 at every step: the weights never changed. Set learning_rate."
    return None


def _starts_high(run: Run) -> str | None:
    nll = run.series("train_mean_nll").finite
    if not len(nll) or nll.values[0] <= HIGH_NLL:
        return None
    return (
        f"Training NLL starts at {number(nll.values[0])}; of text, a language model's is below 5. "
        "The targets are not shifted by one, or the layout is not the model's: look at a datum."
    )


def _got_worse(run: Run) -> str | None:
    series = run.headline()
    if _starts_high(run):
        return None
    metric, went = describe(series.name), change(series)
    worse = {"lower": "rises", "higher": "falls"}.get(metric.better)
    if went.verb != worse:
        return None
    return (
        f"{sentence_case(metric.label)} got worse, from {number(went.first)} to "
        f"{number(went.last)}: most often learning_rate is too high. Try a third of it."
    )


def _no_effect(run: Run) -> str | None:
    series = run.headline()
    went, trained = change(series), change(run.series("train_mean_nll"))
    if len(series.finite) < 2 or not went.verb.startswith(("hardly", "does not")):
        return None
    if _collapsed(run) or _no_signal(run) or _overfits(run):
        return None
    text = (
        f"{sentence_case(describe(series.name).label)} did not change beyond its noise "
        f"({number(went.first)} to {number(went.last)}, ±{number(went.noise, 2)})"
    )
    if trained.verb == "falls":
        return (
            f"{text}, while training NLL fell from {number(trained.first)} to "
            f"{number(trained.last)}: what is trained is not what is measured. Look at the mask of "
            "a datum."
        )
    return (
        f"{text}: learning_rate is too low, the run too short, or what is trained is not what is "
        "measured. Look at a datum or an answer, then try three times the rate."
    )


def _overfits(run: Run) -> str | None:
    held_out, train = run.series("test/nll").finite, change(run.series("train_mean_nll"))
    if len(held_out) < 3 or train.difference >= 0 or _starts_high(run):
        return None
    best = int(np.argmin(held_out.values))
    rise = held_out.values[-1] - held_out.values[best]
    half_width = (held_out.high[best] - held_out.low[best]) / 2
    # Same examples at both ends, so a rise of half the interval is already no accident.
    margin = half_width / 2 if math.isfinite(half_width) else 0.02 * held_out.values[best]
    if rise <= margin:
        return None
    return (
        f"Held-out NLL was best at step {held_out.steps[best]:.0f} and rose by {number(rise, 2)} "
        "since while training NLL fell: overfitting. Train fewer epochs or take the checkpoint "
        "nearest that step."
    )


def _mixed(run: Run) -> Floats:
    """Return each step's share of groups with differing rewards; none if a teacher pays instead."""
    taught = len(run.series("env/all/teacher_kl").finite)
    mixed = run.series("env/all/by_group/frac_mixed").finite.values
    return mixed[:0] if taught else mixed


def _collapsed(run: Run) -> str | None:
    mixed, reward = _mixed(run), run.series("env/all/reward/total").finite.values
    if len(mixed) < 2 or mixed[0] < 0.1 or mixed[-1] > 0 or reward[-1] >= reward[0]:
        return None
    return (
        f"Reward fell from {number(reward[0])} to {number(reward[-1])} and no group is mixed any "
        "more: the policy collapsed. Most often learning_rate is too high (try a third of it) or "
        "the rewards are not centred."
    )


def _no_signal(run: Run) -> str | None:
    mixed = _mixed(run)
    if not len(mixed) or mixed.mean() >= 0.1 or _collapsed(run):
        return None
    return (
        f"Only {mixed.mean():.0%} of the groups had differing rewards: the others teach nothing. "
        "Choose easier or harder problems, or more samples per problem."
    )


def _off_policy(run: Run) -> str | None:
    kl = np.abs(run.series("kl_sample_train_v1").finite.values)
    if not len(kl) or np.median(kl) <= 0.01:
        return None
    return (
        f"|KL| between sampler and trainer is {number(float(np.median(kl)), 2)} in the median step "
        "(healthy: below 0.01): the samples are stale, or were drawn at a temperature other than 1."
    )


def _stopped_early(run: Run) -> str | None:
    if any(record.get("final") for record in run.checkpoints):
        return None
    done = int(run.records[-1]["step"]) + 1 if run.records else 0
    planned = _planned_steps(run)
    if not planned or not 0 < done < planned:
        return None
    return (
        f"The log ends after {done:,} of {planned:,} planned steps. Start the run again with the "
        "same log_path and settings to go on."
    )


def _planned_steps(run: Run) -> int | None:
    """Return how many steps the run was to take: as its progress tells, else `max_steps`."""
    progress = run.series("progress").finite
    if len(progress) and progress.values[-1] > 0:
        return round(progress.steps[-1] / progress.values[-1])
    planned = run.config.get("max_steps")
    return planned if isinstance(planned, int) else None


RULES: tuple[Rule, ...] = (
    _not_finite,
    _nothing_trained,
    _starts_high,
    _got_worse,
    _no_effect,
    _overfits,
    _collapsed,
    _no_signal,
    _off_policy,
    _stopped_early,
)
