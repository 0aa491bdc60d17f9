"""Wall time of a part of a step, as a metric."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timed(name: str) -> Iterator[dict[str, float]]:
    """Give a mapping that holds the seconds of the block under `name` once the block has ended.

    Example: ``with timed("time/evaluation") as timing: ...`` and then ``metrics |= timing``.
    """
    timing: dict[str, float] = {}
    started = time.perf_counter()
    yield timing
    timing[name] = time.perf_counter() - started
