"""On-policy distillation: the student samples, the teacher scores each of its tokens.

Give `ReverseKL` to `cookbook.rl.train` as `edit`: rollouts, update, evaluation, log and resume are
those of reinforcement learning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cookbook.checkpointing import ready
from cookbook.distillation.reading import Reader, aligned
from cookbook.errors import ConfigError
from cookbook.rl import Group, Row, episode_rows, penalise_distance, reference_logprobs
from cookbook.rl.background import Background
from cookbook.rows import Message


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Who scores the student's tokens."""

    model: str
    """A `tinker://` sampler path, or the name of a base model with the student's tokenizer."""
    context: Sequence[Message] = ()
    """Messages before the conversation that it alone reads."""

    def sampler(self, service: Any) -> Any:
        """Return its sampling client."""
        kind = "model_path" if self.model.startswith("tinker://") else "base_model"
        return ready(service.create_sampling_client(**{kind: self.model}))


class ReverseKL:
    """An `AdvantageEdit`: each sampled token's advantage is how much more the teacher likes it.

    Formula: ``A_t = log p_teacher(y_t) - log p_student(y_t)`` on the student's own tokens, in the
    place of whatever the rewards gave. Its sum's expectation is -KL(student || teacher), and the
    policy gradient with it descends that KL, taking each token's prefix as given.
    Source: Agarwal et al. 2023, "On-policy distillation", arXiv:2306.13649, with the reverse KL;
        per-token advantages as in the public tinker-cookbook. *Left out*: mixing in the teacher's
        own samples, and what a token does to the KL of those after it.

    Args:
        service: from `cookbook.service.connect`.
        renderer: the student's; needed by teachers with a context only.
        teachers: by the tag of the problems that each teaches; "" teaches all that have no other.
    Raises:
        ConfigError: no teachers.
    """

    def __init__(self, service: Any, renderer: Any, teachers: Mapping[str, Teacher]) -> None:
        if not teachers:
            raise ConfigError("ReverseKL: got no teachers; give at least one, {'': Teacher(...)}.")
        self._service = service
        self._teachers = dict(teachers)
        self._readers = {
            tag: Reader(renderer, tuple(teacher.context)) for tag, teacher in teachers.items()
        }
        self._samplers: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """Return the teachers; a run is only resumed with the same."""
        return {
            tag: {"model": teacher.model, "context": list(teacher.context)}
            for tag, teacher in self._teachers.items()
        }

    def __call__(
        self, groups: Sequence[Group], rows_by_group: Sequence[Sequence[Row]]
    ) -> tuple[list[list[Row]], dict[str, float]]:
        """Return the rows with the teachers' advantages, and the mean KL, nats per token.

        Raises:
            ConfigError: a problem's tag has no teacher.
        """
        tags = [self._tag_of(group) for group in groups]
        for tag in set(tags) - set(self._samplers):
            self._samplers[tag] = self._teachers[tag].sampler(self._service)
        with Background() as background:
            asked = [
                background.submit(self._scores(tag, group))
                for tag, group in zip(tags, groups, strict=True)
            ]
            scores_by_group = [pending.result() for pending in asked]
        edited = [
            reverse_kl_rows(rows, scores)
            for rows, scores in zip(rows_by_group, scores_by_group, strict=True)
        ]
        metrics = {"env/all/teacher_kl": _mean_kl([row for rows in edited for row in rows])}
        for tag in sorted(set(tags)) if len(self._teachers) > 1 else ():
            own = [row for t, rows in zip(tags, edited, strict=True) if t == tag for row in rows]
            metrics[f"env/{tag or 'others'}/teacher_kl"] = _mean_kl(own)
        return edited, metrics

    def _tag_of(self, group: Group) -> str:
        tag = group.problem.tag if group.problem.tag in self._teachers else ""
        if tag not in self._teachers:
            raise ConfigError(
                f"problem {group.problem.name!r} has the tag {group.problem.tag!r}, but teachers "
                f"are there for {', '.join(map(repr, self._teachers))}. Add one for it, or '' for "
                "all others."
            )
        return tag

    async def _scores(self, tag: str, group: Group) -> list[np.ndarray]:
        """Return the teacher's log-probability of each token (T,), for each row of a group."""
        rows, readings = list[Row](), list[Row]()
        for episode in group.episodes:
            own = episode_rows(episode, 0.0)
            rows += own
            readings += self._readers[tag].read(episode, own)
        found = await reference_logprobs(self._samplers[tag], readings)
        return [aligned(scores, row) for scores, row in zip(found, rows, strict=True)]


def reverse_kl_rows(rows: Sequence[Row], teacher_logprobs_T: Sequence[np.ndarray]) -> list[Row]:
    """Return the rows with the advantages of `ReverseKL`, given the teacher's scores (T,) of each.

    Rewards that the rows had are dropped.
    """
    blank = [replace(row, advantages=np.zeros(len(row.tokens))) for row in rows]
    edited, _ = penalise_distance(blank, teacher_logprobs_T, 1.0, centred=False)
    return edited


def _mean_kl(rows: Sequence[Row]) -> float:
    """Return the mean of log p_student - log p_teacher over the sampled tokens."""
    return -float(np.concatenate([row.advantages[row.sampled] for row in rows]).mean())
