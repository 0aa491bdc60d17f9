"""The glossary of metrics: one table that the plots, the report and the notebooks read."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher", "-"]


@dataclass(frozen=True, kw_only=True)
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
    healthy: str = ""
    """What a healthy run shows."""
    aliases: tuple[str, ...] = ()
    """Other names for the same quantity, as other programs write it."""

    @property
    def axis(self) -> str:
        """Label and unit, as they stand on an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


METRICS = (
    Metric(
        name="test/nll",
        label="held-out NLL",
        unit="nats/token",
        better="lower",
        meaning="mean negative log-likelihood on conversations that are never trained on",
        healthy="falls, then levels off; rising again while the training NLL falls is overfitting",
    ),
    Metric(
        name="test/bpb",
        label="held-out bits per byte",
        unit="bits/byte",
        better="lower",
        meaning="held-out NLL per byte of text, comparable between tokenizers",
        healthy="falls together with the held-out NLL",
    ),
    Metric(
        name="train_mean_nll",
        label="training NLL",
        unit="nats/token",
        better="lower",
        meaning="mean negative log-likelihood of the batch, before its update",
        healthy="falls fast, then slowly; noisy from batch to batch",
    ),
    Metric(
        name="train_mean_bpb",
        label="training bits per byte",
        unit="bits/byte",
        better="lower",
        meaning="training NLL per byte of text, comparable between tokenizers",
        healthy="falls together with the training NLL",
    ),
    Metric(
        name="test/env/all/reward/total",
        label="held-out reward",
        unit="per episode",
        better="higher",
        meaning="mean reward on problems never trained on",
        healthy="rises with the training reward",
    ),
    Metric(
        name="env/all/reward/total",
        label="reward",
        unit="per episode",
        better="higher",
        meaning="mean reward of the episodes sampled in this step, before its update",
        healthy="rises; flat at the bottom means nothing is ever rewarded",
    ),
    Metric(
        name="env/all/correct",
        label="correct answers",
        unit="fraction",
        better="higher",
        meaning="fraction of episodes with the right answer",
        healthy="rises with the reward",
    ),
    Metric(
        name="env/all/format",
        label="well-formed answers",
        unit="fraction",
        better="higher",
        meaning="fraction of episodes in the required form",
        healthy="near 1 after the first steps",
    ),
    Metric(
        name="env/all/by_group/frac_mixed",
        label="groups that teach",
        unit="fraction",
        better="-",
        meaning="fraction of groups whose rewards differ; only these have a non-zero advantage",
        healthy="well above 0 while there is something to learn",
    ),
    Metric(
        name="optim/entropy",
        label="entropy",
        unit="nats/token",
        better="-",
        meaning="mean of -log p of the sampled tokens",
        healthy="falls slowly; a sudden drop to 0 ends exploration",
        aliases=("entropy",),
    ),
    Metric(
        name="kl_sample_train_v1",
        label="KL sampler to trainer",
        unit="nats/token",
        better="-",
        meaning="mean of log p(sampler) - log p(trainer) on the sampled tokens",
        healthy="within 0.01 of 0",
        aliases=("optim/kl_sample_train_v1",),
    ),
    Metric(
        name="kl_sample_train_v2",
        label="KL sampler to trainer, squared form",
        unit="nats/token",
        better="-",
        meaning="half the mean square of log p(sampler) - log p(trainer)",
        healthy="below 0.01",
        aliases=("optim/kl_sample_train_v2",),
    ),
    Metric(
        name="env/all/ac_tokens_per_turn",
        label="response length",
        unit="tokens",
        better="-",
        meaning="mean number of sampled tokens in a turn",
        healthy="steady; a drift to the limit or to 1 is a sign of a reward being gamed",
        aliases=("ac_tokens_per_turn",),
    ),
    Metric(
        name="learning_rate",
        label="learning rate",
        unit="",
        better="-",
        meaning="Adam step size of this update",
        aliases=("optim/lr",),
    ),
    Metric(
        name="tokens_per_s",
        label="throughput",
        unit="tokens/s",
        better="-",
        meaning="num_tokens per second of time/total without time/evaluation",
        healthy="steady after the first steps",
    ),
    Metric(
        name="time/total",
        label="time per step",
        unit="s",
        better="-",
        meaning="wall time of the whole step",
        healthy="steady after the first steps",
    ),
    Metric(
        name="num_tokens",
        label="tokens in the batch",
        unit="tokens",
        better="-",
        meaning="tokens that went through the model in this step",
        aliases=("env/all/total_ac_tokens",),
    ),
    Metric(
        name="num_loss_tokens",
        label="trained tokens",
        unit="tokens",
        better="-",
        meaning="tokens with a loss weight above 0",
    ),
    Metric(
        name="num_sequences",
        label="sequences in the batch",
        unit="sequences",
        better="-",
        meaning="sequences in this step",
    ),
    Metric(
        name="progress",
        label="progress",
        unit="fraction",
        better="-",
        meaning="planned steps already done",
        aliases=("progress/done_frac",),
    ),
    Metric(
        name="epoch",
        label="epoch",
        unit="",
        better="-",
        meaning="pass over the training data, counted from 0",
    ),
)
_BY_NAME = {name: metric for metric in METRICS for name in (metric.name, *metric.aliases)}
_ORDER = {name: position for position, name in enumerate(_BY_NAME)}

HEADLINES = (
    "test/nll",
    "test/env/all/reward/total",
    "env/all/reward/total",
    "train_mean_nll",
)
"""What a run is judged by: the first of these that its log holds."""


def describe(name: str) -> Metric:
    """Return the glossary's entry for `name`; an unknown name describes itself."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    seconds = name.startswith("time/")
    meaning = "wall time of this part of the step" if seconds else "not in the glossary"
    return Metric(name=name, label=name, unit="s" if seconds else "", better="-", meaning=meaning)


def rank(name: str) -> tuple[int, str]:
    """Return a sorting key: the glossary's order first, other names by alphabet after it."""
    return _ORDER.get(name, len(_ORDER)), name
