"""Where metrics go besides the run folder: nowhere, or Weights & Biases."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cookbook.errors import ConfigError


class Tracker(Protocol):
    """What a run log needs of an experiment tracker."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Send the metrics of one step."""
        ...

    def finish(self) -> None:
        """Send what is left and end the session."""
        ...


class NoTracker:
    """The tracker of a run that keeps everything in its own folder."""

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""


class WandbTracker:
    """A Weights & Biases run, continued under the same id when the training run is resumed.

    A resumed run may repeat a few steps; W&B takes steps in rising order only and drops the ones
    it already has, so no step shows up twice there either.
    """

    def __init__(
        self, *, project: str, name: str, run_id: str, config: Mapping[str, Any], folder: Path
    ) -> None:
        wandb = _import_wandb()
        _require_credentials(wandb)
        try:
            self._run = wandb.init(
                project=project,
                name=name,
                id=run_id,
                resume="allow",
                config=dict(config),
                dir=str(folder),
            )
        except Exception as error:
            raise ConfigError(
                f"W&B did not start for wandb_project={project!r}: {error}. Leave wandb_project "
                "empty to keep the run local, or set WANDB_MODE=offline to upload later."
            ) from error

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Send the metrics of one step."""
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        """Send what is left and end the session."""
        self._run.finish()


def new_run_id() -> str:
    """Return a fresh W&B run id."""
    return uuid.uuid4().hex[:12]


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            "wandb_project is set, but the wandb package is not installed. Run "
            "pip install 'tinker-cookbook-notebooks[wandb]', or leave wandb_project empty to keep "
            "the run local."
        ) from error
    return wandb


def _require_credentials(wandb: Any) -> None:
    """Refuse to start where W&B would stop and ask for a key, which no notebook run can answer."""
    if wandb.setup().settings.mode in ("offline", "disabled", "dryrun"):
        return
    if not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            "wandb_project is set, but W&B knows no key on this machine. Set WANDB_API_KEY, or run "
            "wandb login once; WANDB_MODE=offline records without a key; an empty wandb_project "
            "keeps the run local."
        )
