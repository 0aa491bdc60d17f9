"""A training run in a process of its own, to be killed by a test.

Kept importable and small: the test lets a fork server load it once, so that each further process
starts at once.
"""

import os
from multiprocessing.connection import Connection

import transformers

from cookbook.service import connect
from cookbook.supervised import Config, train

# The SDK imports this late, which would cost every process seconds.
PRELOADED = transformers.AutoTokenizer


def run(server: dict[str, str], config: Config, steps: Connection) -> None:
    """Train; send the number of each step once it is logged, and at the start -1."""
    os.environ.update(server)
    service = connect(config.model_name)
    steps.send(-1)
    train(config, service, on_step=lambda metrics: steps.send(metrics["step"]))
