"""The glossary of metrics: one table read by plots, report, notebooks and docs."""

from dataclasses import dataclass, field
from typing import Literal

Better = Literal["lower", "higher", "-"]


@dataclass(frozen=True)
class Metric:
    """What one name in `metrics.jsonl` means."""

    name: str
    """The name in the file."""
    label: str
    """Short name for axes and titles."""
    unit: str
    """Unit of the value; empty for a pure number."""
    better: Better
    """Which direction is an improvement, "-" for neither."""
    meaning: str
    """One line of explanation."""
    healthy: str = field(default="", kw_only=True)
    """What a healthy run shows."""
    aliases: tuple[str, ...] = field(default=(), kw_only=True)
    """Other names for the same quantity, as other programs write it."""

    @property
    def axis(self) -> str:
        """Label and unit, as they stand on an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


# A table, so its rows stay rows.
# fmt: off
METRICS = (
    Metric(
        "test/nll", "held-out NLL", "nats/token", "lower",
        "mean negative log-likelihood on conversations that are never trained on",
        healthy="falls, then levels off; rising again while the training NLL falls is overfitting",
    ),
    Metric(
        "test/bpb", "held-out bits per byte", "bits/byte", "lower",
        "held-out NLL per byte of text, comparable between tokenizers",
        healthy="falls together with the held-out NLL",
    ),
    Metric(
        "train_mean_nll", "training NLL", "nats/token", "lower",
        "mean negative log-likelihood of the batch, before its update",
        healthy="falls fast, then slowly; noisy from batch to batch",
    ),
    Metric(
        "train_mean_bpb", "training bits per byte", "bits/byte", "lower",
        "training NLL per byte of text, comparable between tokenizers",
        healthy="falls together with the training NLL",
    ),
    Metric(
        "test/env/all/reward/total", "held-out reward", "per episode", "higher",
        "mean reward on problems never trained on",
        healthy="rises with the training reward",
    ),
    Metric(
        "test/env/all/correct", "held-out accuracy", "fraction", "higher",
        "fraction of held-out episodes with the right answer",
        healthy="rises with the held-out reward",
    ),
    Metric(
        "test/env/all/format", "held-out well-formed answers", "fraction", "higher",
        "fraction of held-out episodes in the required form",
        healthy="near 1 after the first steps",
    ),
    Metric(
        "test/env/all/total_episodes", "held-out episodes", "episodes", "-",
        "episodes that a held-out figure is the mean of",
    ),
    Metric(
        "env/all/reward/total", "reward", "per episode", "higher",
        "mean reward of the episodes sampled in this step, before its update",
        healthy="rises; flat at the bottom means nothing is ever rewarded",
    ),
    Metric(
        "env/all/correct", "correct answers", "fraction", "higher",
        "fraction of episodes with the right answer",
        healthy="rises with the reward",
    ),
    Metric(
        "env/all/format", "well-formed answers", "fraction", "higher",
        "fraction of episodes in the required form",
        healthy="near 1 after the first steps",
    ),
    Metric(
        "test/env/all/win", "held-out win rate", "fraction", "higher",
        "fraction of held-out answers preferred to a fixed rival's; a tie counts half",
        healthy="rises from 0.5, where the rival is the policy before training",
    ),
    Metric(
        "env/all/asks_back", "answers that ask back", "fraction", "higher",
        "fraction of answers that answer, then end with their only question; never rewarded",
        healthy="rises with the win rate; falling behind it is over-optimisation",
    ),
    Metric(
        "env/all/characters", "answer length", "characters", "-",
        "mean number of characters in an answer",
        healthy="steady; a drift to 0 is a preference followed too far",
    ),
    Metric(
        "env/all/says_something", "answers that say something", "fraction", "higher",
        "fraction of answers of at least four words",
        healthy="near 1",
    ),
    Metric(
        "env/all/calls", "tool calls", "calls", "-",
        "mean number of tool calls in an episode",
        healthy="as many as the task needs; a fall to 0 means the tool is given up",
    ),
    Metric(
        "env/all/failed_calls", "failed tool calls", "calls", "lower",
        "mean number of calls in an episode that were answered by an error",
        healthy="falls to 0",
    ),
    Metric(
        "env/all/broken_calls", "episodes ended by a broken call", "fraction", "lower",
        "fraction of episodes ended by a tool call that cannot be parsed",
        healthy="falls to 0",
    ),
    Metric(
        "env/all/win", "games won", "fraction", "higher",
        "fraction of games that the policy won",
        healthy="rises against a fixed opponent; in self-play both sides are the policy",
    ),
    Metric(
        "env/all/draw", "games drawn", "fraction", "-",
        "fraction of games that nobody won",
        healthy="near 1 between perfect players of tic-tac-toe",
    ),
    Metric(
        "env/all/loss", "games lost", "fraction", "lower",
        "fraction of games that the policy lost, by an illegal move too",
        healthy="falls against a fixed opponent",
    ),
    Metric(
        "env/all/illegal", "illegal moves", "per episode", "lower",
        "mean number of illegal moves in an episode; one ends a game of tic-tac-toe",
        healthy="falls to 0",
    ),
    Metric(
        "env/all/wasted", "wasted guesses", "per episode", "lower",
        "mean number of guesses in an episode of guess the number that gained nothing",
        healthy="falls",
    ),
    Metric(
        "env/all/guesses", "guesses", "per episode", "-",
        "mean number of guesses at the word in an episode of twenty questions",
    ),
    Metric(
        "env/all/by_group/frac_mixed", "groups that teach", "fraction", "-",
        "fraction of groups whose rewards differ; only these have a non-zero advantage",
        healthy="well above 0 while there is something to learn",
    ),
    Metric(
        "env/all/by_group/frac_all_good", "solved groups", "fraction", "-",
        "fraction of groups in which every reward is at least 0.5",
        healthy="rises; at 1 nothing is left to learn",
    ),
    Metric(
        "env/all/by_group/frac_all_bad", "hopeless groups", "fraction", "-",
        "fraction of groups in which every reward is below 0.5",
        healthy="falls; staying near 1 means problems out of reach",
    ),
    Metric(
        "optim/entropy", "entropy", "nats/token", "-",
        "mean of -log p of the sampled tokens",
        healthy="falls slowly; a sudden drop to 0 ends exploration",
        aliases=("entropy",),
    ),
    Metric(
        "kl_sample_train_v1", "KL sampler to trainer", "nats/token", "-",
        "mean of log p(sampler) - log p(trainer) on the sampled tokens",
        healthy="within 0.01 of 0",
        aliases=("optim/kl_sample_train_v1",),
    ),
    Metric(
        "kl_sample_train_v2", "KL sampler to trainer, squared form", "nats/token", "-",
        "half the mean square of log p(sampler) - log p(trainer)",
        healthy="below 0.01",
        aliases=("optim/kl_sample_train_v2",),
    ),
    Metric(
        "kl_policy_base", "KL policy to reference", "nats/token", "-",
        "mean of log p(sampler) - log p(reference) on the sampled tokens",
        healthy="grows slowly; how much is worth it is what kl_coef decides",
    ),
    Metric(
        "env/all/teacher_kl", "KL student to teacher", "nats/token", "lower",
        "mean of log p(student) - log p(teacher) on the student's own tokens, before the update",
        healthy="falls fast, then slowly towards 0",
        aliases=("teacher_kl",),
    ),
    Metric(
        "optim/staleness", "age of the samples", "steps", "-",
        "optimiser steps between the weights that sampled and those that are trained",
        healthy="0 on-policy; never above max_staleness",
    ),
    Metric(
        "env/all/ac_tokens_per_turn", "response length", "tokens", "-",
        "mean number of sampled tokens in a turn",
        healthy="steady; a drift to the limit or to 1 is a sign of a reward being gamed",
        aliases=("ac_tokens_per_turn",),
    ),
    Metric(
        "env/all/frac_unfinished", "cut-off episodes", "fraction", "-",
        "fraction of episodes cut off by a limit of tokens or turns",
        healthy="low; else raise max_tokens or reward finishing",
    ),
    Metric(
        "env/all/ob_tokens_per_turn", "prompt length", "tokens", "-",
        "mean number of tokens the model reads before a turn",
    ),
    Metric(
        "env/all/turns_per_episode", "turns per episode", "turns", "-",
        "mean number of the model's turns in an episode",
    ),
    Metric(
        "env/all/total_episodes", "episodes in the step", "episodes", "-",
        "episodes played to an end in this step",
    ),
    Metric(
        "env/all/total_turns", "turns in the step", "turns", "-",
        "turns of the model in this step",
    ),
    Metric(
        "env/all/total_ac_tokens", "sampled tokens", "tokens", "-",
        "tokens sampled in this step",
    ),
    Metric(
        "rollout_errors/error", "failed episodes", "episodes", "lower",
        "episodes left out because their environment raised an error",
        healthy="0",
    ),
    Metric(
        "rollout_errors/timeout", "timed-out episodes", "episodes", "lower",
        "episodes left out because their environment did not answer in time",
        healthy="0",
    ),
    Metric(
        "dpo_loss", "DPO loss", "nats", "lower",
        "mean loss of the pairs of the batch, before its update",
        healthy="starts at ln 2 = 0.693, where the policy is the reference; falls",
    ),
    Metric(
        "accuracy", "preference accuracy", "fraction", "higher",
        "fraction of pairs whose chosen answer has the larger implicit reward; a tie counts half",
        healthy="starts at 0.5 by definition; rises early, long before the answers change",
    ),
    Metric(
        "ranking_accuracy", "ranking accuracy", "fraction", "higher",
        "fraction of pairs whose chosen answer the policy finds likelier than the rejected one",
        healthy="starts wherever the reference stands; rises more slowly than the accuracy",
    ),
    Metric(
        "margin", "reward margin", "", "higher",
        "mean implicit reward of the chosen answers minus that of the rejected ones",
        healthy="rises from 0; many times larger than 1 means that pairs no longer teach",
    ),
    Metric(
        "chosen_reward", "reward of the chosen", "", "-",
        "mean of beta (log p(policy) - log p(reference)) of the chosen answers",
        healthy="near 0 or above; often it falls too, only less than that of the rejected",
    ),
    Metric(
        "rejected_reward", "reward of the rejected", "", "-",
        "mean of beta (log p(policy) - log p(reference)) of the rejected answers",
        healthy="falls",
    ),
    Metric(
        "chosen_logprob", "log p of the chosen", "nats/answer", "-",
        "mean summed log-probability of the chosen answers",
        healthy="steady; a long fall means that the policy leaves the data altogether",
    ),
    Metric(
        "rejected_logprob", "log p of the rejected", "nats/answer", "-",
        "mean summed log-probability of the rejected answers",
        healthy="falls",
    ),
    Metric(
        "implicit_kl", "implicit KL", "nats/token", "-",
        "half the mean square of log p(policy) - log p(reference) on the tokens of both answers",
        healthy="grows from 0, more slowly with a larger beta",
    ),
    Metric(
        "num_pairs", "pairs in the batch", "pairs", "-",
        "comparisons in this step",
    ),
    Metric(
        "learning_rate", "learning rate", "", "-",
        "Adam step size of this update",
        aliases=("optim/lr",),
    ),
    Metric(
        "tokens_per_s", "throughput", "tokens/s", "-",
        "num_tokens per second of time/total without time/evaluation",
        healthy="steady after the first steps",
    ),
    Metric(
        "time/total", "time per step", "s", "-",
        "wall time of the whole step",
        healthy="steady after the first steps",
    ),
    Metric(
        "time/sampling", "time to sample", "s", "-",
        "wall time until the step's episodes were there",
    ),
    Metric(
        "time/training", "time to train", "s", "-",
        "wall time of the step's loss, gradient and update",
    ),
    Metric(
        "time/evaluation", "time to evaluate", "s", "-",
        "wall time of the evaluation in this step",
    ),
    Metric(
        "num_tokens", "tokens in the batch", "tokens", "-",
        "tokens that went through the model in this step",
    ),
    Metric(
        "num_loss_tokens", "trained tokens", "tokens", "-",
        "tokens with a loss weight above 0",
    ),
    Metric(
        "num_sequences", "sequences in the batch", "sequences", "-",
        "sequences in this step",
    ),
    Metric(
        "progress", "progress", "fraction", "-",
        "planned steps already done",
        aliases=("progress/done_frac",),
    ),
    Metric(
        "progress/batch", "batch", "", "-",
        "number of the step, counted from 0",
    ),
    Metric(
        "epoch", "epoch", "", "-",
        "pass over the training data, counted from 0",
    ),
)
# fmt: on
