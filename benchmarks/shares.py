"""Where does the engine's time go? ``python -m benchmarks.shares``

Runs three jobs in a process without a server under torch's profiler and prints the share of each
operation. The profiler slows small operations down, so the shares say where to look, not how long.
"""

import time

from torch.profiler import ProfilerActivity, profile

from benchmarks import workloads
from benchmarks.direct import Direct
from cookbook.engine.runtime import pick_dtype
from cookbook.engine.weights import resolve_model
from cookbook.models import DEFAULT_MODEL

TOLD = 8


def main() -> None:
    """Print the shares of three jobs."""
    direct = Direct(resolve_model(DEFAULT_MODEL), pick_dtype("auto", "cpu"))
    many, one = workloads.sampling(8, 8, 64), workloads.sampling(1, 1, 128)
    rows = workloads.conversations()
    for name, work in {
        "sample 64 × 64 tokens": lambda: direct.sample(many),
        "sample 1 × 128 tokens": lambda: direct.sample(one),
        "train on 16 conversations": lambda: direct.train(rows),
    }.items():
        work()  # warm
        with profile(activities=[ProfilerActivity.CPU]) as watched:
            began = time.perf_counter()
            work()
            wall = time.perf_counter() - began
        spent = {each.key: each.self_cpu_time_total / 1e6 for each in watched.key_averages()}
        print(f"\n{name}: {wall:.2f} s under the profiler")
        for key in sorted(spent, key=lambda key: -spent[key])[:TOLD]:
            print(f"  {key:40s} {spent[key] / wall:6.1%}")
        print(f"  {'Python, and what is not in torch':40s} {1 - sum(spent.values()) / wall:6.1%}")


if __name__ == "__main__":
    main()
