"""A training run in a process of its own, to be killed by a test.

Kept importable and small: the test lets a fork server load it once, so that each further process
starts at once.
"""

import os
import threading

import psutil
import transformers

from cookbook.service import connect
from cookbook.supervised import Config, train

# The SDK imports this late, which would cost every process seconds.
PRELOADED = transformers.AutoTokenizer


def run(server: dict[str, str], config: Config, step: int, delay_s: float) -> None:
    """Train; die this long after that step was logged (-1: after connecting), in whatever is done.

    The process kills itself: on a busy machine another one would come too late.
    """
    os.environ.update(server)
    service = connect(config.model_name)
    killer = threading.Timer(delay_s, psutil.Process().kill)
    if step == -1:
        killer.start()
    train(config, service, on_step=lambda metrics: metrics["step"] == step and killer.start())
