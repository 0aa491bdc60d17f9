"""The folder a training run writes: settings, metrics, checkpoints, and how a run goes on.

| file | content |
|---|---|
| `config.json` | the settings the run was started with |
| `metrics.jsonl` | one JSON object per step, `step` included, in rising order |
| `checkpoints.jsonl` | one object per save: name, step, `state_path`, `sampler_path`, loop state |
| `run.json` | what the run was made with: name, start, versions, commit, W&B run id |

Every file survives SIGKILL at any moment: JSON files are replaced whole, lines are appended whole.
A step counts from 0; a checkpoint's `step` is the number of optimiser steps it contains, so after
loading it training goes on at exactly that step, and `rewind(step)` drops what would come twice.
"""

from cookbook.runlog.folder import read_config, read_facts, unique_log_path
from cookbook.runlog.log import RunLog, read_checkpoints, read_metrics
from cookbook.runlog.timing import timed

__all__ = [
    "RunLog",
    "read_checkpoints",
    "read_config",
    "read_facts",
    "read_metrics",
    "timed",
    "unique_log_path",
]
