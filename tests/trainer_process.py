"""A training run in a process of its own, to be killed by a test.

Kept importable and small: the test lets a fork server load it once, so that each further process
starts at once.
"""

import os
import threading
from typing import Any

import psutil
import transformers

from cookbook import preferences, supervised
from cookbook.service import connect

# The SDK imports this late, which would cost every process seconds.
PRELOADED = transformers.AutoTokenizer


def run(server: dict[str, str], config: Any, step: int, delay_s: float) -> None:
    """Train; die this long after that step was logged (-1: after connecting), in whatever is done.

    The config says which trainer.

    The process kills itself: on a busy machine another one would come too late.
    """
    os.environ.update(server)
    service = connect(config.model_name)
    killer = threading.Timer(delay_s, psutil.Process().kill)
    if step == -1:
        killer.start()
    trainer = preferences if isinstance(config, preferences.Config) else supervised
    trainer.train(config, service, lambda metrics: metrics["step"] == step and killer.start())
